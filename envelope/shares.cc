#include "envelope/shares.h"

#include <string>

#include "envelope/base/hash.h"
#include "envelope/base/rsa.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kSecretSizeBytes = 32;
constexpr unsigned kPolynomial = 0x11d;

// AllOnesIf returns all ones where `bit` is 1, else 0. The compiler cannot see which, so that it
// makes no branch of what follows.
unsigned AllOnesIf(unsigned bit) {
  unsigned mask = 0U - bit;
  __asm__("" : "+r"(mask));
  return mask;
}

std::uint8_t Multiply(unsigned left, unsigned right) {
  unsigned product = 0;
  for (unsigned bit = 0; bit < 8; ++bit) {
    product ^= left & AllOnesIf((right >> bit) & 1U);
    left = (left << 1) ^ (kPolynomial & AllOnesIf((left >> 7) & 1U));
  }
  return static_cast<std::uint8_t>(product);
}

// Invert returns a^254, which is 1/a in a field of 256 elements.
std::uint8_t Invert(std::uint8_t element) {
  std::uint8_t power = element;
  std::uint8_t result = 1;
  for (int bit = 1; bit < 8; ++bit) {  // 254 = 2 + 4 + … + 128
    power = Multiply(power, power);
    result = Multiply(result, power);
  }
  return result;
}

// LagrangeAtZero returns the weight of share `own` where the curve is taken at x = 0.
std::uint8_t LagrangeAtZero(std::span<const Share> shares, std::size_t own) {
  const auto x_own = static_cast<std::uint8_t>(shares[own].index);
  std::uint8_t numerator = 1;
  std::uint8_t denominator = 1;
  for (std::size_t other = 0; other < shares.size(); ++other) {
    if (other == own) continue;
    const auto x_other = static_cast<std::uint8_t>(shares[other].index);
    numerator = Multiply(numerator, x_other);
    denominator = Multiply(denominator, x_other ^ x_own);
  }
  return Multiply(numerator, Invert(denominator));
}

// WrapShare makes a member's factor. An RSA token gives the share itself; what ECDH gives is not
// ours to choose, so the header has its difference to the share, fresh as the ephemeral key is.
Result<TokenRecord> WrapShare(const TokenKey& key, const SecretBytes& share, RandomSource& random) {
  if (const auto rsa = RsaPublicKey::FromSpki(key.spki)) {
    Pkcs11RsaRecord record;
    record.token = key.token;
    record.spki = key.spki;
    record.uri = key.uri;
    ASSIGN_OR_RETURN(record.wrapped, rsa->EncryptOaep(record.hash, share));
    return TokenRecord(std::move(record));
  }
  ASSIGN_OR_RETURN(WrappedToToken wrapped, WrapToToken(key, random));
  Bytes32& mask = std::get<Pkcs11EcdhRecord>(wrapped.record).mask.emplace();
  for (std::size_t i = 0; i < mask.size(); ++i) {
    mask[i] = wrapped.secret.Expose()[i] ^ share.Expose()[i];
  }
  return std::move(wrapped.record);
}

Error BadShare(const ShareMember& member) {
  return Error(ErrorCode::kFactorBad, Action::kWrongDevice,
               "what the token of " + member.name + " gave is not the share that was dealt",
               "other officers' shares serve as well; have this envelope made again")
      .WithFailure(Failure::kFactor);
}

}  // namespace

Result<std::vector<Share>> SplitSecret(const SecretBytes& secret, std::uint32_t threshold,
                                       std::uint32_t num_shares, RandomSource& random) {
  std::vector<SecretBytes> coefficients;
  for (std::uint32_t power = 1; power < threshold; ++power) {
    ASSIGN_OR_RETURN(SecretBytes coefficient, RandomSecret(random, secret.size()));
    coefficients.push_back(std::move(coefficient));
  }
  std::vector<Share> shares;
  for (std::uint32_t index = 1; index <= num_shares; ++index) {
    ASSIGN_OR_RETURN(SecretBytes bytes, SecretBytes::Allocate(secret.size()));
    const std::span<std::uint8_t> y = bytes.ExposeMutable();
    for (std::size_t i = 0; i < y.size(); ++i) {  // Horner's rule, from the highest power down
      std::uint8_t value = 0;
      for (std::size_t power = coefficients.size(); power-- > 0;) {
        value = Multiply(value ^ coefficients[power].Expose()[i], index);
      }
      y[i] = value ^ secret.Expose()[i];
    }
    shares.push_back({index, std::move(bytes)});
  }
  return shares;
}

Result<SecretBytes> CombineShares(std::span<const Share> shares) {
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::Allocate(shares.front().bytes.size()));
  const std::span<std::uint8_t> sum = secret.ExposeMutable();
  for (std::size_t own = 0; own < shares.size(); ++own) {
    const std::uint8_t weight = LagrangeAtZero(shares, own);
    const ByteView y = shares[own].bytes.Expose();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] ^= Multiply(y[i], weight);
  }
  return secret;
}

Bytes32 ShareCommitment(std::string_view binding, std::uint32_t index, const SecretBytes& share) {
  const std::string label =
      "keyescrow1|share|" + std::string(binding) + "|" + std::to_string(index) + "|";
  return Sha256({AsBytes(label), share.Expose()});
}

Result<EnrolledShares> EnrollShares(std::string_view binding, std::uint32_t threshold,
                                    std::span<const TokenKey> members, RandomSource& random) {
  EnrolledShares enrolled;
  ASSIGN_OR_RETURN(enrolled.secret, RandomSecret(random, kSecretSizeBytes));
  ASSIGN_OR_RETURN(
      const std::vector<Share> shares,
      SplitSecret(enrolled.secret, threshold, static_cast<std::uint32_t>(members.size()), random));
  enrolled.record.threshold = threshold;
  for (const Share& share : shares) {
    const TokenKey& key = members[share.index - 1];
    ShareMember member;
    member.index = share.index;
    member.name = key.token;
    member.commitment = ShareCommitment(binding, share.index, share.bytes);
    ASSIGN_OR_RETURN(member.factor, WrapShare(key, share.bytes, random));
    enrolled.record.members.push_back(std::move(member));
  }
  return enrolled;
}

Result<Share> OpenShare(const ShareMember& member, std::string_view binding,
                        const SecretBytes& token_secret) {
  if (token_secret.size() != kSecretSizeBytes) return BadShare(member);
  Share share;
  share.index = member.index;
  ASSIGN_OR_RETURN(share.bytes, SecretBytes::CopyOf(token_secret.Expose()));
  if (const auto* ecdh = std::get_if<Pkcs11EcdhRecord>(&member.factor)) {
    const std::span<std::uint8_t> y = share.bytes.ExposeMutable();
    for (std::size_t i = 0; i < y.size(); ++i) y[i] ^= (*ecdh->mask)[i];
  }
  if (ShareCommitment(binding, member.index, share.bytes) != member.commitment) {
    return BadShare(member);
  }
  return share;
}

}  // namespace keyescrow::envelope
