// NIST P-256 (FIPS 186-5, SP 800-56A) over OpenSSL: points, key pairs, ES256 and ECDH.
#pragma once

#include <memory>
#include <optional>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

// P256Point: a point on the curve other than infinity. Only FromXy and its siblings make one, so
// a P256Point that exists is on the curve with coordinates below p.
class P256Point {
 public:
  static std::optional<P256Point> FromXy(ByteView x, ByteView y);    // 32 bytes each
  static std::optional<P256Point> FromUncompressed(ByteView bytes);  // 65 bytes, 04‖x‖y
  static std::optional<P256Point> FromSpki(ByteView der);            // exactly 91 bytes

  const Bytes32& x() const { return x_; }
  const Bytes32& y() const { return y_; }
  std::array<std::uint8_t, 65> Uncompressed() const;
  // Spki returns the 91-byte SubjectPublicKeyInfo (RFC 5480: id-ecPublicKey, prime256v1).
  std::array<std::uint8_t, 91> Spki() const;
  bool operator==(const P256Point&) const = default;

 private:
  P256Point() = default;
  Bytes32 x_{};
  Bytes32 y_{};
};

// JwkThumbprint returns the RFC 7638 thumbprint with SHA-256 of the point's JWK, in base64url.
std::string JwkThumbprint(const P256Point& point);

// VerifyEs256 checks R‖S (64 bytes) over a SHA-256 digest. A high S is accepted; R or S out of
// 1..n-1 is false. Source: RFC 7518, 3.4.
bool VerifyEs256(const P256Point& key, const Bytes32& digest, const Bytes64& signature);

// DER ECDSA-Sig-Value (RFC 3279) from and to R‖S.
Bytes EcdsaSignatureToDer(const Bytes64& signature);
std::optional<Bytes64> EcdsaSignatureFromDer(ByteView der);

// P256KeyPair holds a private key inside the cryptographic library.
class P256KeyPair {
 public:
  static Result<P256KeyPair> Generate();
  // FromScalar takes the 32-byte private key d, 1 ≤ d < n. Errors: kCryptoLibrary out of range.
  static Result<P256KeyPair> FromScalar(const SecretBytes& scalar);
  P256KeyPair(P256KeyPair&&) noexcept;
  P256KeyPair& operator=(P256KeyPair&&) noexcept;
  ~P256KeyPair();

  const P256Point& Public() const;
  // Scalar returns d, 32 bytes.
  Result<SecretBytes> Scalar() const;
  // SignEs256 signs a SHA-256 digest; R‖S.
  Result<Bytes64> SignEs256(const Bytes32& digest) const;
  // SharedX returns the x coordinate of d·peer, 32 bytes (SP 800-56A 5.7.1.2).
  Result<SecretBytes> SharedX(const P256Point& peer) const;

 private:
  struct Impl;
  explicit P256KeyPair(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow
