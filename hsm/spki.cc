#include "hsm/spki.h"

#include <algorithm>
#include <bit>

namespace keyescrow::hsm {
namespace {

constexpr std::uint8_t kRsaAlgorithm[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                          0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};
constexpr std::uint8_t kP256Params[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
constexpr std::uint8_t kP256SpkiPrefix[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                            0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};
constexpr std::size_t kPointSize = 65;

ByteView DropLeadingZeros(ByteView number) {
  while (!number.empty() && number.front() == 0) number = number.subspan(1);
  return number;
}

// Der returns one DER element of at most 65535 content bytes.
Bytes Der(std::uint8_t tag, ByteView content) {
  Bytes element = {tag};
  const std::size_t size = content.size();
  if (size >= 0x100) {
    element.insert(element.end(), {0x82, static_cast<std::uint8_t>(size >> 8),
                                   static_cast<std::uint8_t>(size & 0xff)});
  } else if (size >= 0x80) {
    element.insert(element.end(), {0x81, static_cast<std::uint8_t>(size)});
  } else {
    element.push_back(static_cast<std::uint8_t>(size));
  }
  element.insert(element.end(), content.begin(), content.end());
  return element;
}

Bytes DerInteger(ByteView number) {
  Bytes content;
  if ((number.front() & 0x80) != 0) content.push_back(0);
  content.insert(content.end(), number.begin(), number.end());
  return Der(0x02, content);
}

}  // namespace

std::uint32_t ModulusBits(ByteView modulus) {
  modulus = DropLeadingZeros(modulus);
  if (modulus.empty()) return 0;
  return static_cast<std::uint32_t>((modulus.size() - 1) * 8) +
         static_cast<std::uint32_t>(std::bit_width(modulus.front()));
}

std::optional<Bytes> RsaSpki(ByteView modulus, ByteView exponent) {
  modulus = DropLeadingZeros(modulus);
  exponent = DropLeadingZeros(exponent);
  const std::uint32_t bits = ModulusBits(modulus);
  if (bits < 2048 || bits > 8192 || exponent.empty() || exponent.size() > modulus.size() ||
      (exponent.back() & 1) == 0 || (exponent.size() == 1 && exponent.front() == 1)) {
    return std::nullopt;
  }
  Bytes numbers = DerInteger(modulus);
  const Bytes e = DerInteger(exponent);
  numbers.insert(numbers.end(), e.begin(), e.end());
  Bytes bit_string = {0};  // no unused bits
  const Bytes key = Der(0x30, numbers);
  bit_string.insert(bit_string.end(), key.begin(), key.end());
  Bytes content(std::begin(kRsaAlgorithm), std::end(kRsaAlgorithm));
  const Bytes subject = Der(0x03, bit_string);
  content.insert(content.end(), subject.begin(), subject.end());
  return Der(0x30, content);
}

std::optional<Bytes> EcP256Spki(ByteView ec_params, ByteView ec_point) {
  if (!std::equal(ec_params.begin(), ec_params.end(), std::begin(kP256Params),
                  std::end(kP256Params))) {
    return std::nullopt;
  }
  if (ec_point.size() == kPointSize + 2 && ec_point[0] == 0x04 && ec_point[1] == kPointSize) {
    ec_point = ec_point.subspan(2);
  }
  if (ec_point.size() != kPointSize || ec_point[0] != 0x04) return std::nullopt;
  Bytes spki(std::begin(kP256SpkiPrefix), std::end(kP256SpkiPrefix));
  spki.insert(spki.end(), ec_point.begin(), ec_point.end());
  return spki;
}

}  // namespace keyescrow::hsm
