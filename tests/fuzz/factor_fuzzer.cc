// The records of factors: public keys, points, PCR selections, signatures, as they come out of an
// envelope, a token or a TPM. What is accepted is canonical.
#include "envelope/base/p256.h"
#include "envelope/factor.h"
#include "hsm/spki.h"
#include "tests/fuzz/fuzz.h"
#include "tpm/srk.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 2048, .memory_mib = 16, .cpu_s = 2};
// The library's first use allocates what stays for the process.
void Prepare() { RsaPublicKey::FromSpki({}); }

void VisitLargest(Feed feed) {
  for (std::uint8_t kind = 0; kind < 8; ++kind) {
    Bytes input(256 << 10, 0xff);
    input[0] = kind;
    feed(input);
  }
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  fuzz::Input input(data, size);
  switch (input.U8() % 8) {
    case 0: {
      const ByteView der = input.rest();
      if (const auto key = RsaPublicKey::FromSpki(der)) {
        FUZZ_CHECK(key->Spki() == ToBytes(der));
        FUZZ_CHECK(key->modulus_size_bytes() >= 256 && key->modulus_size_bytes() <= 1024);
      }
      break;
    }
    case 1: {
      const ByteView modulus = input.Field();
      const ByteView exponent = input.rest();
      const auto key = RsaPublicKey::FromModulus(modulus, exponent);
      if (key) FUZZ_CHECK(RsaPublicKey::FromSpki(key->Spki()).has_value());
      if (const auto spki = hsm::RsaSpki(modulus, exponent)) {
        const auto parsed = RsaPublicKey::FromSpki(*spki);
        FUZZ_CHECK(!parsed || parsed->Spki() == *spki);
      }
      hsm::ModulusBits(modulus);
      break;
    }
    case 2:
      if (const auto point = P256Point::FromSpki(input.rest())) {
        const auto spki = point->Spki();
        FUZZ_CHECK(ToBytes(spki) == ToBytes(input.rest()));
      }
      break;
    case 3:
      if (const auto point = P256Point::FromUncompressed(input.rest())) {
        const auto bytes = point->Uncompressed();
        FUZZ_CHECK(ToBytes(bytes) == ToBytes(input.rest()));
        FUZZ_CHECK(P256Point::FromSpki(point->Spki()) == point);
        JwkThumbprint(*point);
      }
      break;
    case 4: {
      const std::string_view text = AsText(input.rest());
      if (const auto pcrs = envelope::ParsePcrSelection(text)) {
        FUZZ_CHECK(envelope::FormatPcrSelection(*pcrs) == text);
        envelope::Tpm2AuthPolicy(*pcrs, Bytes32{}, {});
        envelope::MarshalPcrSelection(*pcrs);
      }
      break;
    }
    case 5:
      if (const auto signature = EcdsaSignatureFromDer(input.rest())) {
        FUZZ_CHECK(EcdsaSignatureFromDer(EcdsaSignatureToDer(*signature)) == signature);
      }
      break;
    case 6: {
      const ByteView params = input.Field();
      if (const auto spki = hsm::EcP256Spki(params, input.rest())) FUZZ_CHECK(spki->size() == 91);
      break;
    }
    default:
      if (tpm::ParseSrkPublic(input.rest()))
        FUZZ_CHECK(input.rest().size() == tpm::kSrkPublicBytes);
      envelope::Tpm2Name(input.rest());
      break;
  }
  return 0;
}
