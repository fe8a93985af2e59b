// Every file of tests/vectors, read by the product and opened through its own PathOpener. Software
// keys and a TPM double stand for the devices that the vectors describe (tests/vectors/README.md).
#define OPENSSL_SUPPRESS_DEPRECATED
#include <gtest/gtest.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "agent/usecases/open_path.h"
#include "agent/usecases/token_names.h"
#include "envelope/base/base64url.h"
#include "envelope/edit.h"

namespace keyescrow::agent {
namespace {

Bytes FromHex(std::string_view hex) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(
        static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

struct Vector {
  std::string name;
  std::map<std::string, std::string> fields;
  std::vector<std::string> token_keys;
  Bytes envelope;
};

Bytes Gunzip(const Bytes& packed) {
  char path[] = "/tmp/keyescrow-vector-XXXXXX";
  const int fd = mkstemp(path);
  EXPECT_EQ(write(fd, packed.data(), packed.size()), static_cast<ssize_t>(packed.size()));
  close(fd);
  FILE* pipe = popen((std::string("gzip -dc < ") + path).c_str(), "r");
  Bytes bytes;
  std::uint8_t buffer[65536];
  for (std::size_t count; (count = fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    bytes.insert(bytes.end(), buffer, buffer + count);
  }
  EXPECT_EQ(pclose(pipe), 0);
  unlink(path);
  return bytes;
}

Vector ReadVector(const std::filesystem::path& path) {
  static const std::set<std::string> kKnown = {
      "expect",         "source",         "comment",      "path",        "password_hex",   "trust",
      "tpm_parent_hex", "tpm_sealed_hex", "tpm_auth_hex", "content_hex", "envelope_gz_b64"};
  std::ifstream file(path, std::ios::binary);
  std::stringstream whole;
  whole << file.rdbuf();
  const std::string text = whole.str();
  Vector vector;
  vector.name = path.stem();
  std::size_t position = 0;
  while (true) {
    const std::size_t end = text.find('\n', position);
    if (end == std::string::npos) {
      ADD_FAILURE() << path << " has no blank line";
      return vector;
    }
    const std::string line = text.substr(position, end - position);
    position = end + 1;
    if (line.empty()) break;
    const std::size_t colon = line.find(": ");
    const std::string key = line.substr(0, colon);
    const std::string value = colon == std::string::npos ? "" : line.substr(colon + 2);
    if (key == "token_key_pem_b64") {
      vector.token_keys.push_back(value);
    } else {
      EXPECT_TRUE(kKnown.contains(key)) << path << ": unknown key " << key;
      EXPECT_TRUE(vector.fields.emplace(key, value).second) << path << ": " << key << " twice";
    }
  }
  vector.envelope = ToBytes(AsBytes(std::string_view(text).substr(position)));
  if (vector.fields.contains("envelope_gz_b64")) {
    std::string body(AsText(vector.envelope));
    std::erase(body, '\n');
    vector.envelope = Gunzip(DecodeBase64(body).value());
  }
  return vector;
}

// SoftwareToken is a private key in this process.
class SoftwareToken final : public envelope::TokenFactor {
 public:
  explicit SoftwareToken(EVP_PKEY* key) : key_(key) {}
  Status Locate() override { return Ok(); }
  Result<SecretBytes> UnwrapRsa(const envelope::Pkcs11RsaRecord& record) override {
    auto block = SecretBytes::Allocate(record.wrapped.size()).value();
    EVP_PKEY_CTX* context = EVP_PKEY_CTX_new(key_, nullptr);
    std::size_t size = block.size();
    EXPECT_EQ(EVP_PKEY_decrypt_init(context), 1);
    EXPECT_EQ(EVP_PKEY_CTX_set_rsa_padding(context, RSA_NO_PADDING), 1);
    const int done = EVP_PKEY_decrypt(context, block.ExposeMutable().data(), &size,
                                      record.wrapped.data(), record.wrapped.size());
    EVP_PKEY_CTX_free(context);
    auto secret =
        done == 1 ? RemoveOaepPadding(record.hash, block) : Result<SecretBytes>(Refusal());
    if (secret && secret->size() != 32) return Refusal();
    return secret;
  }
  Result<SecretBytes> DeriveEcdh(const envelope::Pkcs11EcdhRecord& record) override {
    BIGNUM* number = nullptr;
    EVP_PKEY_get_bn_param(key_, OSSL_PKEY_PARAM_PRIV_KEY, &number);
    auto scalar = SecretBytes::Allocate(32).value();
    BN_bn2binpad(number, scalar.ExposeMutable().data(), 32);
    BN_free(number);
    const auto pair = P256KeyPair::FromScalar(scalar).value();
    const auto shared = pair.SharedX(*P256Point::FromUncompressed(record.epk)).value();
    return envelope::EcdhSecret(shared, record);
  }

 private:
  static Error Refusal() {
    return Error(ErrorCode::kTokenDataInvalid, Action::kWrongDevice, "refused", "none");
  }
  EVP_PKEY* key_;
};

class TpmDouble final : public envelope::TpmFactor {
 public:
  explicit TpmDouble(const Vector& vector) : vector_(vector) {}
  Result<Bytes> StorageParent() override { return FromHex(vector_.fields.at("tpm_parent_hex")); }
  Result<envelope::Tpm2Record> Seal(const envelope::SealRequest&) override { std::abort(); }
  Result<SecretBytes> Unseal(const envelope::Tpm2Record&,
                             const envelope::UnsealRequest& request) override {
    const auto wanted = vector_.fields.find("tpm_auth_hex");
    const Bytes given =
        request.auth_value != nullptr ? ToBytes(request.auth_value->Expose()) : Bytes();
    const Bytes expected = wanted != vector_.fields.end() ? FromHex(wanted->second) : Bytes();
    if (given != expected) {
      return Error(ErrorCode::kTpmWrongAuth, Action::kReauthenticate, "refused", "none");
    }
    return SecretBytes::CopyOf(FromHex(vector_.fields.at("tpm_sealed_hex")));
  }
  Result<envelope::TpmState> Inspect() override { return envelope::TpmState{}; }

 private:
  const Vector& vector_;
};

class VectorDevices final : public Devices {
 public:
  explicit VectorDevices(const Vector& vector) : vector_(vector), tpm_(vector) {
    for (const std::string& encoded : vector.token_keys) {
      const Bytes pem = DecodeBase64(encoded).value();
      BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
      keys_.push_back(PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr));
      BIO_free(bio);
      EXPECT_NE(keys_.back(), nullptr);
    }
  }
  ~VectorDevices() override {
    for (EVP_PKEY* key : keys_) EVP_PKEY_free(key);
  }
  void UseTpm(const std::string&, const Bytes&) override {}
  Result<envelope::TpmFactor*> Tpm() override {
    if (vector_.fields.contains("tpm_parent_hex")) {
      return static_cast<envelope::TpmFactor*>(&tpm_);
    }
    return Error(ErrorCode::kTpmUnavailable, Action::kCheckSystemState, "no tpm", "none");
  }
  Result<std::unique_ptr<envelope::TokenFactor>> StartToken(const TokenSpec& spec,
                                                            envelope::PinProvider&) override {
    for (EVP_PKEY* key : keys_) {
      std::uint8_t* der = nullptr;
      const int size = i2d_PUBKEY(key, &der);
      const Bytes spki(der, der + size);
      OPENSSL_free(der);
      if (spki == spec.spki) {
        return std::unique_ptr<envelope::TokenFactor>(std::make_unique<SoftwareToken>(key));
      }
    }
    return Error(ErrorCode::kTokenNotFound, Action::kReconnect, "no token", "none");
  }
  Status PersistSrk() override { std::abort(); }
  Result<TpmAgentKeyBlob> CreateAgentKey(const SecretBytes&) override { std::abort(); }
  Result<std::unique_ptr<envelope::Signer>> OpenAgentKey(const TpmAgentKeyBlob&,
                                                         SecretBytes) override {
    std::abort();
  }
  void LastSignature() override {}
  Result<TpmAnchorBlob> CreateAnchor(const SecretBytes&, const std::string&) override {
    std::abort();
  }
  Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(const TpmAnchorBlob&, SecretBytes,
                                                       const std::string&) override {
    std::abort();
  }
  Result<TokenUri> ParseTokenUri(const std::string&) override { std::abort(); }
  Result<ModuleFacts> InspectModule(const std::string&) override { std::abort(); }
  Result<TokenKeyFacts> FindTokenKey(const std::string&, const std::string&,
                                     envelope::PinProvider*) override {
    std::abort();
  }
  Result<std::string> ReadTokenEvidence(const TokenSpec&, envelope::PinProvider&) override {
    std::abort();
  }
  Result<TokenKeyFacts> GenerateTokenKey(const KeyPairRequest&, envelope::PinProvider&) override {
    std::abort();
  }

 private:
  const Vector& vector_;
  TpmDouble tpm_;
  std::vector<EVP_PKEY*> keys_;
};

class VectorSecrets final : public Secrets, public envelope::PinProvider {
 public:
  explicit VectorSecrets(const Vector& vector) : vector_(vector) {}
  Result<SecretBytes> Password(std::string_view, std::string_view) override {
    const auto found = vector_.fields.find("password_hex");
    if (found != vector_.fields.end()) return SecretBytes::CopyOf(FromHex(found->second));
    return Error(ErrorCode::kSecretSourceMissing, Action::kFixInput, "no password", "none");
  }
  Result<SecretBytes> NewPassword(std::string_view, std::string_view) override { std::abort(); }
  envelope::PinProvider& Pins() override { return *this; }
  bool HasPin(std::string_view) override { return true; }
  Status ConfirmLoss() override { return Ok(); }
  Result<SecretBytes> AskPin(const envelope::PinRequest&) override { std::abort(); }
  void OnReader(const envelope::PinRequest&) override {}

 private:
  const Vector& vector_;
};

class Silence final : public Progress {
 public:
  void Step(std::string_view) override {}
  void Pause() override {}
  void Note(std::string_view) override {}
  void Warn(std::string_view) override {}
};

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

envelope::ReadOptions Trust(const Vector& vector) {
  envelope::ReadOptions options;
  const auto found = vector.fields.find("trust");
  if (found == vector.fields.end()) return options;
  envelope::TrustedAgent agent;
  for (const std::string& word : Split(found->second, ' ')) {
    if (word.starts_with("hosts=")) {
      agent.host_patterns = Split(word.substr(6), ',');
    } else if (word.starts_with("keys=")) {
      agent.key_patterns = Split(word.substr(5), ',');
    } else {
      agent.thumbprint = word;
    }
  }
  options.trusted.push_back(agent);
  return options;
}

std::string OutcomeOf(const Error& error) {
  if (error.code() == ErrorCode::kTpmWrongDevice) return "absent";
  return std::string(FailureName(error.failure()));
}

// ExpectKeptByAnEdit: the next revision has every path as it was, and this one opens it.
void ExpectKeptByAnEdit(const envelope::SealedEnvelope& sealed,
                        const envelope::OpenedEnvelope& opened, const PathOpenOptions& options,
                        std::size_t index, StretchedPasswords& passwords) {
  class KeySigner final : public envelope::Signer {
   public:
    const P256Point& PublicKey() const override { return pair_.Public(); }
    Result<Bytes64> SignDigest(const Bytes32& digest) override { return pair_.SignEs256(digest); }

   private:
    P256KeyPair pair_ = P256KeyPair::Generate().value();
  } signer;
  std::vector<envelope::NextPath> kept;
  for (std::size_t i = 0; i < sealed.header().paths.size(); ++i) {
    kept.emplace_back(envelope::KeptPath{i});
  }
  const auto edited = envelope::Reseal(sealed, opened, {"edited", "2030-01-01T00:00:00Z"}, kept,
                                       signer, SystemRandom());
  ASSERT_TRUE(edited || sealed.header().revision == INT32_MAX) << edited.error().message();
  if (!edited) return;
  envelope::ReadOptions trust;
  trust.trusted.push_back({JwkThumbprint(signer.PublicKey()), {}, {}});
  const auto next = envelope::SealedEnvelope::Read(AsBytes(edited->file), trust);
  ASSERT_TRUE(next) << next.error().message();
  EXPECT_EQ(next->header().previous, EncodeBase64Url(sealed.hash()));
  ASSERT_EQ(next->header().paths.size(), kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_TRUE(envelope::SamePath(next->header().paths[i], sealed.header().paths[i]));
  }
  PathOpener opener(*next, options, passwords);
  const auto again = opener.Open(index);
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_TRUE(again->content().EqualsConstantTime(opened.content()));
}

// Judge returns the outcome and, where the path opened, the content in hexadecimal.
std::pair<std::string, std::string> Judge(const Vector& vector, StretchedPasswords& passwords) {
  auto sealed = envelope::SealedEnvelope::Read(vector.envelope, Trust(vector));
  if (!sealed) return {OutcomeOf(sealed.error()), sealed.error().message()};
  const auto path = vector.fields.find("path");
  if (path == vector.fields.end()) return {"ok", ""};
  const envelope::PathRecord* record = sealed->header().FindPath(path->second);
  if (record == nullptr) return {"factor", "no such path"};
  VectorDevices devices(vector);
  VectorSecrets secrets(vector);
  Silence silence;
  PathOpenOptions options;
  options.devices = &devices;
  options.secrets = &secrets;
  options.progress = &silence;
  options.module = "vectors";
  options.pcr_policy_signature.emplace();  // this TPM looks at no policy
  PathOpener opener(*sealed, options, passwords);
  const auto index = static_cast<std::size_t>(record - sealed->header().paths.data());
  auto opened = opener.Open(index);
  if (!opened) return {OutcomeOf(opened.error()), opened.error().message()};
  SCOPED_TRACE(vector.name);
  ExpectKeptByAnEdit(*sealed, *opened, options, index, passwords);
  return {"ok", ToHex(opened->content().Expose())};
}

TEST(Vectors, EachHasTheOutcomeThatItNames) {
  StretchedPasswords passwords;
  std::size_t num_vectors = 0;
  std::size_t num_damaged = 0;
  std::map<std::string, int> outcomes;
  for (const auto& entry :
       std::filesystem::directory_iterator(KEYESCROW_SOURCE_DIR "/tests/vectors")) {
    if (entry.path().extension() != ".txt") continue;
    const Vector vector = ReadVector(entry.path());
    const auto [outcome, detail] = Judge(vector, passwords);
    EXPECT_EQ(outcome, vector.fields.at("expect"))
        << vector.name << ": " << vector.fields.at("comment") << " [" << detail << "]";
    // A password is blamed only where it may be wrong: D or the tag under PK show that it is not.
    for (const char* damaged : {"unwrap_fk_", "unwrap_drill_key_", "unwrap_wrapped_tag_bit",
                                "unwrap_recovery_key_d_", "unwrap_recovery_key_drill_key"}) {
      if (!vector.name.starts_with(damaged)) continue;
      EXPECT_EQ(detail.find("the password "), std::string::npos) << vector.name << ": " << detail;
      ++num_damaged;
    }
    if (vector.name.starts_with("unwrap_password_")) {
      EXPECT_NE(detail.find("the password "), std::string::npos) << vector.name << ": " << detail;
    }
    const auto content = vector.fields.find("content_hex");
    if (content != vector.fields.end()) {
      EXPECT_EQ(detail, content->second) << vector.name;
    }
    ++outcomes[outcome];
    ++num_vectors;
  }
  EXPECT_GE(num_vectors, 80U);
  EXPECT_GE(num_damaged, 10U);
  for (const char* outcome :
       {"ok", "format", "limit", "signature", "factor", "unwrap", "mac", "absent"}) {
    EXPECT_GT(outcomes[outcome], 0) << outcome;
  }
}

TEST(SealedEnvelope, SaysOfAnyOtherFileThatItIsNone) {
  for (const char* text : {"", "\n", "a password\n", "[]",
                           "\x7f"
                           "ELF",
                           " \t"}) {
    const auto sealed = envelope::SealedEnvelope::Read(AsBytes(text), {});
    ASSERT_FALSE(sealed) << text;
    EXPECT_EQ(sealed.error().failure(), Failure::kFormat);
    EXPECT_NE(sealed.error().message().find("no envelope"), std::string::npos) << text;
  }
}

// A PIN is asked for by the name of its token, whatever its officer is called.
TEST(TokensOf, NamesOfficersByTheirTokens) {
  envelope::SharesRecord shares;
  for (const char* name : {"alice", "bob"}) {
    envelope::Pkcs11EcdhRecord record;
    record.token = std::string("token-of-") + name;
    envelope::ShareMember& member = shares.members.emplace_back();
    member.name = name;
    member.factor = record;
  }
  envelope::PathRecord path;
  path.factors.emplace_back(shares);
  EXPECT_EQ(TokensOf(path, nullptr).value(),
            (Secrets::TokenNames{"token-of-alice", "token-of-bob"}));
}

}  // namespace
}  // namespace keyescrow::agent
