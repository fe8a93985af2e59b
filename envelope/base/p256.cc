#include "envelope/base/p256.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <algorithm>
#include <cstring>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow {
namespace {

constexpr std::uint8_t kSpkiPrefix[26] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                          0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                          0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00};

const EC_GROUP* Group() {
  static const EC_GROUP* const group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
  return group;
}

struct PkeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Pkey = std::unique_ptr<EVP_PKEY, PkeyDeleter>;
struct ContextDeleter {
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
};
using PkeyContext = std::unique_ptr<EVP_PKEY_CTX, ContextDeleter>;

Error LibraryError(const char* what) {
  return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
               std::string("the cryptographic library failed: ") + what,
               "check the machine's memory, then report this");
}

Pkey MakePkey(int selection, OSSL_PARAM* parameters) {
  PkeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* key = nullptr;
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, selection, parameters) != 1) {
    return nullptr;
  }
  return Pkey(key);
}

char kGroupName[] = "prime256v1";

Pkey PublicPkey(const P256Point& point) {
  auto encoded = point.Uncompressed();
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, kGroupName, 0),
      OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, encoded.data(), encoded.size()),
      OSSL_PARAM_construct_end()};
  return MakePkey(EVP_PKEY_PUBLIC_KEY, parameters);
}

}  // namespace

std::optional<P256Point> P256Point::FromXy(ByteView x, ByteView y) {
  if (x.size() != 32 || y.size() != 32) return std::nullopt;
  P256Point point;
  std::copy(x.begin(), x.end(), point.x_.begin());
  std::copy(y.begin(), y.end(), point.y_.begin());
  const auto encoded = point.Uncompressed();
  // EC_POINT_oct2point refuses coordinates of p or more and points off the curve.
  EC_POINT* parsed = EC_POINT_new(Group());
  const int ok = EC_POINT_oct2point(Group(), parsed, encoded.data(), encoded.size(), nullptr);
  EC_POINT_free(parsed);
  if (ok != 1) return std::nullopt;
  return point;
}

std::optional<P256Point> P256Point::FromUncompressed(ByteView bytes) {
  if (bytes.size() != 65 || bytes[0] != 4) return std::nullopt;
  return FromXy(bytes.subspan(1, 32), bytes.subspan(33, 32));
}

std::optional<P256Point> P256Point::FromSpki(ByteView der) {
  if (der.size() != 91 || std::memcmp(der.data(), kSpkiPrefix, sizeof kSpkiPrefix) != 0) {
    return std::nullopt;
  }
  return FromUncompressed(der.subspan(sizeof kSpkiPrefix));
}

std::array<std::uint8_t, 65> P256Point::Uncompressed() const {
  std::array<std::uint8_t, 65> bytes;
  bytes[0] = 4;
  std::copy(x_.begin(), x_.end(), bytes.begin() + 1);
  std::copy(y_.begin(), y_.end(), bytes.begin() + 33);
  return bytes;
}

std::array<std::uint8_t, 91> P256Point::Spki() const {
  std::array<std::uint8_t, 91> der;
  std::copy(std::begin(kSpkiPrefix), std::end(kSpkiPrefix), der.begin());
  const auto point = Uncompressed();
  std::copy(point.begin(), point.end(), der.begin() + sizeof kSpkiPrefix);
  return der;
}

std::string JwkThumbprint(const P256Point& point) {
  const std::string canonical = R"({"crv":"P-256","kty":"EC","x":")" + EncodeBase64Url(point.x()) +
                                R"(","y":")" + EncodeBase64Url(point.y()) + R"("})";
  return EncodeBase64Url(Sha256(AsBytes(canonical)));
}

bool VerifyEs256(const P256Point& key, const Bytes32& digest, const Bytes64& signature) {
  // A log or a store has many signatures by one key: the library's form of the last one is kept.
  thread_local std::optional<P256Point> last;
  thread_local PkeyContext context;
  if (!context || !(*last == key)) {
    const Pkey pkey = PublicPkey(key);
    context.reset(pkey ? EVP_PKEY_CTX_new(pkey.get(), nullptr) : nullptr);
    if (!context || EVP_PKEY_verify_init(context.get()) != 1) {
      context.reset();
      return false;
    }
    last = key;
  }
  const Bytes der = EcdsaSignatureToDer(signature);
  return EVP_PKEY_verify(context.get(), der.data(), der.size(), digest.data(), digest.size()) == 1;
}

Bytes EcdsaSignatureToDer(const Bytes64& signature) {
  // SEQUENCE { INTEGER r, INTEGER s }: minimal, with a zero byte before a set top bit.
  Bytes der = {0x30, 0};
  der.reserve(72);
  for (std::size_t part = 0; part < 2; ++part) {
    const std::span<const std::uint8_t, 32> number(signature.data() + part * 32, 32);
    std::size_t skip = 0;
    while (skip < 31 && number[skip] == 0) ++skip;
    const bool pad = (number[skip] & 0x80) != 0;
    der.push_back(0x02);
    der.push_back(static_cast<std::uint8_t>(32 - skip + (pad ? 1 : 0)));
    if (pad) der.push_back(0);
    for (std::size_t index = skip; index < 32; ++index) der.push_back(number[index]);
  }
  der[1] = static_cast<std::uint8_t>(der.size() - 2);
  return der;
}

std::optional<Bytes64> EcdsaSignatureFromDer(ByteView der) {
  const unsigned char* cursor = der.data();
  ECDSA_SIG* parsed = d2i_ECDSA_SIG(nullptr, &cursor, static_cast<long>(der.size()));
  if (parsed == nullptr) return std::nullopt;
  Bytes64 signature;
  const bool fits = BN_bn2binpad(ECDSA_SIG_get0_r(parsed), signature.data(), 32) == 32 &&
                    BN_bn2binpad(ECDSA_SIG_get0_s(parsed), signature.data() + 32, 32) == 32 &&
                    !BN_is_negative(ECDSA_SIG_get0_r(parsed)) &&
                    !BN_is_negative(ECDSA_SIG_get0_s(parsed));
  ECDSA_SIG_free(parsed);
  if (!fits || cursor != der.data() + der.size()) return std::nullopt;
  // DER is canonical: another encoding of the same numbers is not accepted.
  const Bytes again = EcdsaSignatureToDer(signature);
  if (!std::equal(again.begin(), again.end(), der.begin(), der.end())) return std::nullopt;
  return signature;
}

// Impl keeps the scalar in locked memory; the library sees it for the length of one call. ECDH and
// key generation use EC_POINT_mul (constant time for one secret scalar) rather than EVP_PKEY: the
// first EVP key generation and the first EVP derivation of a process construct every algorithm of
// their kinds, a millisecond each where a whole restore takes ten.
struct P256KeyPair::Impl {
  SecretBytes scalar;
  P256Point point;
};

namespace {

// LentScalar lends a private key to the library, cleansed at the end.
class LentScalar {
 public:
  explicit LentScalar(const SecretBytes& scalar) : number_(BN_secure_new()) {
    BN_bin2bn(scalar.Expose().data(), static_cast<int>(scalar.size()), number_);
    BN_set_flags(number_, BN_FLG_CONSTTIME);
  }
  LentScalar(const LentScalar&) = delete;
  LentScalar& operator=(const LentScalar&) = delete;
  ~LentScalar() { BN_clear_free(number_); }
  const BIGNUM* get() const { return number_; }
  bool InRange() const {
    return !BN_is_zero(number_) && BN_cmp(number_, EC_GROUP_get0_order(Group())) < 0;
  }

 private:
  BIGNUM* number_;
};

// Multiply writes scalar·peer, or scalar·G where `peer` is null, uncompressed.
bool Multiply(const LentScalar& scalar, const P256Point* peer,
              std::span<std::uint8_t, 65> product) {
  EC_POINT* result = EC_POINT_new(Group());
  bool ok = result != nullptr;
  if (peer != nullptr) {
    const auto encoded = peer->Uncompressed();
    EC_POINT* point = EC_POINT_new(Group());
    ok = ok && EC_POINT_oct2point(Group(), point, encoded.data(), encoded.size(), nullptr) == 1 &&
         EC_POINT_mul(Group(), result, nullptr, point, scalar.get(), nullptr) == 1;
    EC_POINT_free(point);
  } else {
    ok = ok && EC_POINT_mul(Group(), result, scalar.get(), nullptr, nullptr, nullptr) == 1;
  }
  ok = ok && EC_POINT_point2oct(Group(), result, POINT_CONVERSION_UNCOMPRESSED, product.data(),
                                product.size(), nullptr) == product.size();
  EC_POINT_clear_free(result);
  return ok;
}

Pkey PrivatePkey(const SecretBytes& scalar, const P256Point& point) {
  const LentScalar number(scalar);
  const auto encoded = point.Uncompressed();
  OSSL_PARAM_BLD* builder = OSSL_PARAM_BLD_new();
  OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, kGroupName, 0);
  OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, encoded.data(),
                                   encoded.size());
  OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, number.get());
  OSSL_PARAM* parameters = OSSL_PARAM_BLD_to_param(builder);
  Pkey key = MakePkey(EVP_PKEY_KEYPAIR, parameters);
  OSSL_PARAM_free(parameters);  // cleanses the part that a secure BIGNUM gave
  OSSL_PARAM_BLD_free(builder);
  return key;
}

}  // namespace

P256KeyPair::P256KeyPair(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
P256KeyPair::P256KeyPair(P256KeyPair&&) noexcept = default;
P256KeyPair& P256KeyPair::operator=(P256KeyPair&&) noexcept = default;
P256KeyPair::~P256KeyPair() = default;

Result<P256KeyPair> P256KeyPair::Generate() {
  // A scalar out of range comes once in 2^32 draws (FIPS 186-5, A.2.2: rejection).
  while (true) {
    ASSIGN_OR_RETURN(const SecretBytes scalar, RandomSecret(SystemRandom(), 32));
    if (LentScalar(scalar).InRange()) return FromScalar(scalar);
  }
}

Result<P256KeyPair> P256KeyPair::FromScalar(const SecretBytes& scalar) {
  if (scalar.size() != 32) return LibraryError("a P-256 private key is not 32 bytes");
  const LentScalar number(scalar);
  std::array<std::uint8_t, 65> encoded{};
  if (!number.InRange() || !Multiply(number, nullptr, encoded)) {
    return LibraryError("a P-256 private key is out of range");
  }
  const auto point = P256Point::FromUncompressed(encoded);
  if (!point) return LibraryError("a P-256 public key is not on the curve");
  ASSIGN_OR_RETURN(SecretBytes copy, SecretBytes::CopyOf(scalar.Expose()));
  return P256KeyPair(std::make_unique<Impl>(Impl{std::move(copy), *point}));
}

const P256Point& P256KeyPair::Public() const { return impl_->point; }

Result<SecretBytes> P256KeyPair::Scalar() const {
  return SecretBytes::CopyOf(impl_->scalar.Expose());
}

Result<Bytes64> P256KeyPair::SignEs256(const Bytes32& digest) const {
  const Pkey key = PrivatePkey(impl_->scalar, impl_->point);
  PkeyContext context(key ? EVP_PKEY_CTX_new(key.get(), nullptr) : nullptr);
  std::uint8_t der[80];
  std::size_t size = sizeof der;
  if (!context || EVP_PKEY_sign_init(context.get()) != 1 ||
      EVP_PKEY_sign(context.get(), der, &size, digest.data(), digest.size()) != 1) {
    return LibraryError("ES256 signing");
  }
  auto signature = EcdsaSignatureFromDer({der, size});
  if (!signature) return LibraryError("ES256 gave a malformed signature");
  return *signature;
}

Result<SecretBytes> P256KeyPair::SharedX(const P256Point& peer) const {
  std::array<std::uint8_t, 65> product{};
  if (!Multiply(LentScalar(impl_->scalar), &peer, product)) return LibraryError("ECDH");
  auto shared = SecretBytes::CopyOf(std::span(product).subspan(1, 32));
  Cleanse(product.data(), product.size());
  return shared;
}

}  // namespace keyescrow
