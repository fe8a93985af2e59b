#include "envelope/recovery_key.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "envelope/base/base64url.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"
#include "envelope/kdf.h"
#include "envelope/private_jwk.h"
#include "envelope/sealed_envelope.h"
#include "envelope/token_wrap.h"

namespace keyescrow::envelope {
namespace {

// FixedRandom is SHA-256 of a label and a counter: the same draws in every run.
class FixedRandom final : public RandomSource {
 public:
  explicit FixedRandom(std::string label) : label_(std::move(label)) {}
  Status Fill(std::span<std::uint8_t> bytes) override {
    for (std::size_t at = 0; at < bytes.size();) {
      const Bytes32 block = Sha256(AsBytes(label_ + std::to_string(counter_++)));
      const std::size_t count = std::min(block.size(), bytes.size() - at);
      std::copy_n(block.begin(), count, bytes.begin() + static_cast<std::ptrdiff_t>(at));
      at += count;
    }
    return Ok();
  }

 private:
  std::string label_;
  unsigned counter_ = 0;
};

class AgentSigner final : public Signer {
 public:
  explicit AgentSigner(P256KeyPair pair) : pair_(std::move(pair)) {}
  const P256Point& PublicKey() const override { return pair_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return pair_.SignEs256(digest); }

 private:
  P256KeyPair pair_;
};

SecretBytes Secret(std::string_view label) {
  return SecretBytes::CopyOf(Sha256(AsBytes(label))).value();
}

std::vector<FactorRecord> PasswordFactor() {
  PasswordRecord record;
  record.kdf = Pbkdf2Parameters{210000};
  record.salt = std::string(32, 'a');
  return {record};
}

struct Made {
  RecoveryKey key;
  P256KeyPair pair;
};

// Make is a recovery key behind a factor whose secret is Secret(`password`).
Made Make(std::string_view password = "password", std::string_view randomness = "pair") {
  FixedRandom random{std::string(randomness)};
  P256KeyPair pair = NewRecoveryKeyPair(random).value();
  const SecretBytes secret = Secret(password);
  const SecretBytes* const secrets[] = {&secret};
  RecoveryKey key = ProtectRecoveryKey("team", pair, PasswordFactor(), secrets, random).value();
  return {std::move(key), std::move(pair)};
}

Result<OpenedRecoveryKey> Open(const RecoveryKey& key, std::string_view password = "password") {
  const SecretBytes secret = Secret(password);
  const SecretBytes* const secrets[] = {&secret};
  return OpenRecoveryKey(key, secrets);
}

// The answers are those of tests/second_decoder/primitives.py for the same draws.
TEST(RecoveryKey, IsAsFixedRandomnessMakesIt) {
  const Made made = Make();
  EXPECT_EQ(made.key.Thumbprint(), "fMAc-ijJL-1pjTFVzw-D1fyGC9L8IWGQN7egPMwSpL0");
  EXPECT_EQ(ToHex(made.key.Sha256()),
            "2caf994a9c1052a199176b00740afda2d2725d1660769daadd6fef15dc5c0f95");
  EXPECT_TRUE(
      made.key.text.starts_with(R"({"name":"team","public":{"crv":"P-256","kty":"EC","x":")"));
}

TEST(RecoveryKey, OpensByItsFactorsAlone) {
  const Made made = Make();
  const auto opened = Open(made.key).value();
  EXPECT_EQ(opened.pair().Public(), made.pair.Public());
  EXPECT_EQ(Ed25519PublicKey(opened.drill_seed()).value(), made.key.drill_key);
  const auto refused = Open(made.key, "another");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kWrongPassword);
  EXPECT_EQ(refused.error().failure(), Failure::kUnwrap);
}

TEST(RecoveryKey, BindsNameAndPublicHalf) {
  Made made = Make();
  RecoveryKey renamed = ParseRecoveryKey(made.key.text).value();
  renamed.record.name = "other";
  EXPECT_EQ(Open(renamed).error().failure(), Failure::kUnwrap);
  RecoveryKey swapped = ParseRecoveryKey(made.key.text).value();
  swapped.record.public_key = Make("password", "another pair").pair.Public();
  EXPECT_EQ(Open(swapped).error().failure(), Failure::kUnwrap);
}

TEST(RecoveryKey, IsReadStrictly) {
  const std::string good = Make().key.text;
  EXPECT_EQ(ParseRecoveryKey(good).value().text, good);
  EXPECT_EQ(ParseRecoveryKey(good + "\n").value().text, good);
  const auto failure = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    const auto parsed = ParseRecoveryKey(text);
    return parsed ? Failure::kNone : parsed.error().failure();
  };
  EXPECT_EQ(failure("{\"name\"", "{\"extra\":1,\"name\""), Failure::kFormat);
  EXPECT_EQ(failure("\"team\"", "\"te|am\""), Failure::kFormat);
  EXPECT_EQ(failure("P-256", "P-384"), Failure::kFormat);
  EXPECT_EQ(failure("\"private\"", "\"privatе\""), Failure::kFormat);
  EXPECT_EQ(failure("\"factors\":[{", "\"factors\":[[{"), Failure::kFormat);
  EXPECT_EQ(failure("210000", "209999"), Failure::kLimit);
  EXPECT_EQ(failure("..", ".A."), Failure::kFormat);
  EXPECT_EQ(failure("\"drill_key\":\"", "\"drill_key\":\"A"), Failure::kFormat);
  EXPECT_FALSE(ParseRecoveryKey(good + "\n\n"));
  EXPECT_FALSE(ParseRecoveryKey(""));
  EXPECT_EQ(ParseRecoveryKey(std::string(kMaxRecoveryKeySizeBytes + 1, ' ')).error().failure(),
            Failure::kLimit);
}

TEST(PrivateJwk, ComesBackAsItWasWritten) {
  for (int index = 0; index < 32; ++index) {
    FixedRandom random("jwk " + std::to_string(index));
    const P256KeyPair pair = NewRecoveryKeyPair(random).value();
    const SecretBytes text = WritePrivateJwk(pair).value();
    // What the standard encoder makes of d stands in it.
    const std::string d = EncodeBase64Url(pair.Scalar().value().Expose());
    EXPECT_NE(AsText(text.Expose()).find("\"d\":\"" + d + "\""), std::string_view::npos);
    const auto again = ReadPrivateJwk(text).value();
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->Public(), pair.Public());
  }
}

struct Sealed {
  std::string file;
  ReadOptions trust;
  ParsedHeader parsed;
};

Sealed SealTo(const RecoveryKey& key, const SecretBytes& content) {
  FixedRandom random("seal");
  AgentSigner signer(NewRecoveryKeyPair(random).value());
  EnvelopeDraft draft;
  draft.envelope_id = NewEnvelopeId(random).value();
  draft.policy = "corp";
  draft.key_name = "prod/db";
  draft.host = "db1";
  draft.created = draft.updated = "2026-01-31T12:00:00Z";
  std::vector<EnrolledPath> paths(1);
  paths[0].id = "team";
  paths[0].recovery_key = key;
  auto sealed = Seal(draft, paths, content, signer, random).value();
  ReadOptions trust;
  trust.trusted.push_back({JwkThumbprint(signer.PublicKey()), {}, {}});
  return {std::move(sealed.file), std::move(trust), std::move(sealed.parsed)};
}

TEST(SealedEnvelope, TakesAHeaderThatWasParsedOnlyWhereItIsThatOfTheFile) {
  const Made made = Make();
  Sealed file = SealTo(made.key, Secret("content"));
  const auto sealed = SealedEnvelope::Read(AsBytes(file.file), file.trust).value();
  const std::string text = WriteHeader(sealed.header());
  EXPECT_EQ(EncodeBase64Url(AsBytes(text)), file.parsed.aad);

  ParsedHeader other = file.parsed;
  other.aad.back() = other.aad.back() == 'Q' ? 'R' : 'Q';
  other.header.key_name = "another";
  const auto parsed = SealedEnvelope::Read(AsBytes(file.file), file.trust, &other).value();
  EXPECT_EQ(WriteHeader(parsed.header()), text);
  EXPECT_EQ(other.header.key_name, "another");

  const auto taken = SealedEnvelope::Read(AsBytes(file.file), file.trust, &file.parsed).value();
  EXPECT_EQ(WriteHeader(taken.header()), text);
  EXPECT_EQ(taken.hash(), sealed.hash());
  EXPECT_TRUE(file.parsed.aad.empty());  // it is moved out
}

TEST(SealedEnvelope, IsMadeToAPublicHalfAloneAndOpenedByTheFactors) {
  const Made made = Make();
  const SecretBytes content = Secret("content");
  const Sealed file = SealTo(made.key, content);
  const auto sealed = SealedEnvelope::Read(AsBytes(file.file), file.trust).value();
  const PathRecord& path = sealed.header().paths.front();
  EXPECT_TRUE(made.key.IsIn(path));
  EXPECT_TRUE(made.key.IsCopiedTo(path));
  EXPECT_EQ(AsRecoveryKey(path).text, made.key.text);
  const SecretBytes secret = Secret("password");
  const SecretBytes* const secrets[] = {&secret};
  const auto opened = sealed.Open(0, secrets).value();
  EXPECT_TRUE(opened.content().EqualsConstantTime(content));
  EXPECT_EQ(Ed25519PublicKey(opened.drill_seed()).value(), path.drill_key);
  const SecretBytes wrong = Secret("another");
  const SecretBytes* const wrong_secrets[] = {&wrong};
  EXPECT_EQ(sealed.Open(0, wrong_secrets).error().code(), ErrorCode::kWrongPassword);
}

TEST(SealedEnvelope, OpensByTheRegisteredRecordAfterItsPasswordWasChanged) {
  const Made made = Make();
  const SecretBytes content = Secret("content");
  const Sealed file = SealTo(made.key, content);
  const auto sealed = SealedEnvelope::Read(AsBytes(file.file), file.trust).value();
  FixedRandom random("changed");
  const SecretBytes fresh = Secret("new password");
  const SecretBytes* const secrets[] = {&fresh};
  const RecoveryKey changed =
      ProtectRecoveryKey("team", made.pair, PasswordFactor(), secrets, random).value();
  const PathRecord& path = sealed.header().paths.front();
  EXPECT_TRUE(changed.IsIn(path));
  EXPECT_FALSE(changed.IsCopiedTo(path));
  const auto opened = sealed.Open(0, secrets, &changed).value();
  EXPECT_TRUE(opened.content().EqualsConstantTime(content));
  EXPECT_TRUE(opened.drill_seed().empty());  // the envelope names the old record's drill key
  // The copy in the envelope keeps the old password, and opens by it alone.
  EXPECT_FALSE(sealed.Open(0, secrets));
  const SecretBytes old = Secret("password");
  const SecretBytes* const old_secrets[] = {&old};
  EXPECT_TRUE(sealed.Open(0, old_secrets));
  // Another pair under the same name opens nothing.
  const auto other = Open(Make("password", "another pair").key).value();
  EXPECT_EQ(sealed.OpenByRecoveryKey(0, other).error().failure(), Failure::kUnwrap);
}

TEST(RecoveryKey, WrapsAFileKeyForOneEnvelopeAndPath) {
  const Made made = Make();
  FixedRandom random("wrap");
  const SecretBytes file_key = Secret("FK");
  auto wrapped = WrapFileKey(made.pair.Public(), "k|1|id|path", file_key, random).value();
  PathRecord path;
  path.wrapped_key_header = wrapped.header;
  path.wrapped_key = wrapped.jwe;
  const Error refusal(ErrorCode::kEnvelopeUnwrap, Action::kWrongDevice, "refused", "none");
  const auto unwrapped = UnwrapFileKey(made.pair, path, "k|1|id|path", refusal).value();
  EXPECT_TRUE(unwrapped.EqualsConstantTime(file_key));
  EXPECT_FALSE(UnwrapFileKey(made.pair, path, "k|1|id|other", refusal));
  EXPECT_EQ(ToHex(Sha256(AsBytes(WriteCompactJwe(wrapped.header, wrapped.jwe)))),
            "db5fc22ebee88e1a48bf5ba91e7f7fdae87fbe1bcab4f01dbfaa719697113c27");
}

}  // namespace
}  // namespace keyescrow::envelope
