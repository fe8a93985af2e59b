#define OPENSSL_SUPPRESS_DEPRECATED  // RSA_padding_*_PKCS1_OAEP_mgf1 have no EVP counterpart
#include "envelope/base/rsa.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <span>

#include "envelope/base/byte_reader.h"

namespace keyescrow {
namespace {

constexpr std::uint8_t kRsaAlgorithm[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                          0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};

const EVP_MD* Digest(OaepHash hash) { return hash == OaepHash::kSha1 ? EVP_sha1() : EVP_sha256(); }

}  // namespace

// Impl keeps the two numbers, minimal and big-endian. The library's key is made where something is
// encrypted: parsing and writing the DER through it costs 6 million instructions a process, more
// than the rest of a restore's cryptography, for a form that is fixed to the byte.
struct RsaPublicKey::Impl {
  Bytes modulus;
  Bytes exponent;
};

namespace {

struct PkeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Pkey = std::unique_ptr<EVP_PKEY, PkeyDeleter>;

Pkey MakePkey(ByteView modulus, ByteView exponent) {
  BIGNUM* n = BN_bin2bn(modulus.data(), static_cast<int>(modulus.size()), nullptr);
  BIGNUM* e = BN_bin2bn(exponent.data(), static_cast<int>(exponent.size()), nullptr);
  OSSL_PARAM_BLD* builder = OSSL_PARAM_BLD_new();
  OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n);
  OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e);
  OSSL_PARAM* parameters = OSSL_PARAM_BLD_to_param(builder);
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr);
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata_init(context) != 1 ||
      EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1) {
    key = nullptr;
  }
  EVP_PKEY_CTX_free(context);
  OSSL_PARAM_free(parameters);
  OSSL_PARAM_BLD_free(builder);
  BN_free(n);
  BN_free(e);
  return Pkey(key);
}

void AppendDer(Bytes& der, std::uint8_t tag, ByteView body) {
  der.reserve(der.size() + 4 + body.size());
  der.push_back(tag);
  if (body.size() >= 0x100) {
    der.push_back(0x82);
    der.push_back(static_cast<std::uint8_t>(body.size() >> 8));
  } else if (body.size() >= 0x80) {
    der.push_back(0x81);
  }
  der.push_back(static_cast<std::uint8_t>(body.size()));
  der.insert(der.end(), body.begin(), body.end());
}

void AppendInteger(Bytes& der, ByteView number) {
  Bytes body;
  body.reserve(number.size() + 1);
  if ((number[0] & 0x80) != 0) body.push_back(0);
  body.insert(body.end(), number.begin(), number.end());
  AppendDer(der, 0x02, body);
}

// TakeDer returns the body of the next element of that tag; lengths are judged by re-encoding.
std::optional<ByteView> TakeDer(ByteReader& reader, std::uint8_t tag) {
  if (reader.TakeU8() != tag) return std::nullopt;
  const auto first = reader.TakeU8();
  if (!first) return std::nullopt;
  std::size_t size = *first;
  if (*first == 0x81) {
    size = reader.TakeU8().value_or(0);
  } else if (*first == 0x82) {
    size = reader.TakeU16().value_or(0);
  } else if (*first >= 0x80) {
    return std::nullopt;
  }
  return reader.Take(size);
}

ByteView WithoutLeadingZeros(ByteView number) {
  while (!number.empty() && number[0] == 0) number = number.subspan(1);
  return number;
}

}  // namespace

RsaPublicKey::RsaPublicKey(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RsaPublicKey::RsaPublicKey(RsaPublicKey&&) noexcept = default;
RsaPublicKey& RsaPublicKey::operator=(RsaPublicKey&&) noexcept = default;
RsaPublicKey::~RsaPublicKey() = default;

constexpr std::size_t kMaxSpkiBytes = 1200;

std::optional<RsaPublicKey> RsaPublicKey::FromModulus(ByteView modulus, ByteView exponent) {
  modulus = WithoutLeadingZeros(modulus);
  exponent = WithoutLeadingZeros(exponent);
  if (modulus.size() < 256 || modulus.size() > 1024 || exponent.empty() ||
      exponent.size() > modulus.size()) {
    return std::nullopt;
  }
  const bool short_top = modulus.size() == 256 && (modulus[0] & 0x80) == 0;  // below 2048 bits
  const bool one = exponent.size() == 1 && exponent[0] == 1;
  if (short_top || one || (exponent.back() & 1) == 0) return std::nullopt;
  auto impl = std::make_unique<Impl>();
  impl->modulus = ToBytes(modulus);
  impl->exponent = ToBytes(exponent);
  RsaPublicKey key(std::move(impl));
  // A key that an envelope could not name: a modulus and an exponent of 600 bytes each.
  if (key.Spki().size() > kMaxSpkiBytes) return std::nullopt;
  return key;
}

std::optional<RsaPublicKey> RsaPublicKey::FromSpki(ByteView der) {
  if (der.size() > kMaxSpkiBytes) return std::nullopt;
  ByteReader outer(der);
  const auto spki = TakeDer(outer, 0x30);
  if (!spki || !outer.AtEnd()) return std::nullopt;
  ByteReader reader(*spki);
  const auto algorithm = reader.Take(sizeof kRsaAlgorithm);
  if (!algorithm || !std::equal(algorithm->begin(), algorithm->end(), kRsaAlgorithm)) {
    return std::nullopt;
  }
  const auto bits = TakeDer(reader, 0x03);
  if (!bits || !reader.AtEnd() || bits->empty() || (*bits)[0] != 0) return std::nullopt;
  ByteReader inner(bits->subspan(1));
  const auto sequence = TakeDer(inner, 0x30);
  if (!sequence || !inner.AtEnd()) return std::nullopt;
  ByteReader numbers(*sequence);
  const auto modulus = TakeDer(numbers, 0x02);
  const auto exponent = TakeDer(numbers, 0x02);
  if (!modulus || !exponent || !numbers.AtEnd()) return std::nullopt;
  auto key = FromModulus(*modulus, *exponent);
  if (!key) return std::nullopt;
  // Canonical: lengths, signs and leading zeros as DER has them.
  const Bytes again = key->Spki();
  if (!std::equal(again.begin(), again.end(), der.begin(), der.end())) return std::nullopt;
  return key;
}

std::size_t RsaPublicKey::modulus_size_bytes() const { return impl_->modulus.size(); }

Bytes RsaPublicKey::Spki() const {
  Bytes numbers;
  AppendInteger(numbers, impl_->modulus);
  AppendInteger(numbers, impl_->exponent);
  Bytes bits = {0};
  AppendDer(bits, 0x30, numbers);
  Bytes body(std::begin(kRsaAlgorithm), std::end(kRsaAlgorithm));
  AppendDer(body, 0x03, bits);
  Bytes der;
  AppendDer(der, 0x30, body);
  return der;
}

// The block is padded here and encrypted as it is: OpenSSL 3.0's provider frees its own padded
// block, from which anybody reads the plaintext, without wiping it.
Result<Bytes> RsaPublicKey::EncryptOaep(OaepHash hash, const SecretBytes& plaintext) const {
  ASSIGN_OR_RETURN(SecretBytes block, SecretBytes::Allocate(modulus_size_bytes()));
  const Pkey key = MakePkey(impl_->modulus, impl_->exponent);
  EVP_PKEY_CTX* context = key ? EVP_PKEY_CTX_new(key.get(), nullptr) : nullptr;
  Bytes ciphertext(block.size());
  std::size_t size = ciphertext.size();
  const bool ok =
      context != nullptr &&
      RSA_padding_add_PKCS1_OAEP_mgf1(block.ExposeMutable().data(), static_cast<int>(block.size()),
                                      plaintext.Expose().data(), static_cast<int>(plaintext.size()),
                                      nullptr, 0, Digest(hash), Digest(hash)) == 1 &&
      EVP_PKEY_encrypt_init(context) == 1 &&
      EVP_PKEY_CTX_set_rsa_padding(context, RSA_NO_PADDING) == 1 &&
      EVP_PKEY_encrypt(context, ciphertext.data(), &size, block.Expose().data(), block.size()) ==
          1 &&
      size == ciphertext.size();
  EVP_PKEY_CTX_free(context);
  if (!ok) {
    return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
                 "the cryptographic library failed: rsa-oaep", "report this");
  }
  return ciphertext;
}

Result<SecretBytes> RemoveOaepPadding(OaepHash hash, const SecretBytes& encoded_message) {
  ASSIGN_OR_RETURN(SecretBytes plaintext, SecretBytes::Allocate(encoded_message.size()));
  const auto size = static_cast<int>(encoded_message.size());
  const int count = RSA_padding_check_PKCS1_OAEP_mgf1(plaintext.ExposeMutable().data(), size,
                                                      encoded_message.Expose().data(), size, size,
                                                      nullptr, 0, Digest(hash), Digest(hash));
  if (count < 0) {
    return Error(ErrorCode::kTokenDataInvalid, Action::kWrongDevice,
                 "the decrypted block has no OAEP padding: made for another key, or damaged",
                 "check that this is the token the envelope names");
  }
  plaintext.Truncate(static_cast<std::size_t>(count));
  return plaintext;
}

}  // namespace keyescrow
