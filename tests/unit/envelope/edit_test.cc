// Edits against a model: whatever was done to an envelope's paths, exactly those that should open
// it do, each revision names the one before it, and nothing that must be fresh was seen before.
#include "envelope/edit.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/token_wrap.h"

namespace keyescrow::envelope {
namespace {

constexpr std::uint32_t kSeed = 20261126;
constexpr int kNumSequences = 300;
constexpr int kMaxEdits = 10;

class KeySigner final : public Signer {
 public:
  KeySigner() : pair_(*P256KeyPair::Generate()) {}
  const P256Point& PublicKey() const override { return pair_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return pair_.SignEs256(digest); }

 private:
  P256KeyPair pair_;
};

SecretBytes Copy(const SecretBytes& secret) { return *SecretBytes::CopyOf(secret.Expose()); }

std::vector<SecretBytes> CopyAll(const std::vector<SecretBytes>& secrets) {
  std::vector<SecretBytes> copies;
  for (const SecretBytes& secret : secrets) copies.push_back(Copy(secret));
  return copies;
}

Result<OpenedEnvelope> OpenWith(const SealedEnvelope& sealed, std::size_t index,
                                const std::vector<SecretBytes>& secrets) {
  std::vector<const SecretBytes*> pointers;
  for (const SecretBytes& secret : secrets) pointers.push_back(&secret);
  return sealed.Open(index, pointers);
}

// Maker makes paths of tokens and passwords; their secrets are known without any device.
class Maker {
 public:
  explicit Maker(std::mt19937& generator) : generator_(generator) {
    for (int i = 0; i < 4; ++i) tokens_.push_back(*P256KeyPair::Generate());
  }

  EnrolledPath Make(const std::string& id) {
    EnrolledPath path;
    path.id = id;
    const unsigned kind = generator_() % 4;  // a token, a password, both, or two tokens
    const unsigned first = generator_() % 4;
    if (kind != 1) AddToken(first, path);
    if (kind == 3) AddToken((first + 1) % 4, path);
    if (kind == 1 || kind == 2) AddPassword(path);
    return path;
  }

 private:
  void AddToken(unsigned number, EnrolledPath& path) {
    const auto spki = tokens_[number].Public().Spki();
    auto wrapped = *WrapToToken(
        {"token" + std::to_string(number), Bytes(spki.begin(), spki.end()), "pkcs11:token=t"},
        SystemRandom());
    std::visit([&](auto& record) { path.factors.emplace_back(record); }, wrapped.record);
    path.secrets.push_back(std::move(wrapped.secret));
  }
  void AddPassword(EnrolledPath& path) {
    Bytes16 salt{};
    EXPECT_TRUE(SystemRandom().Fill(salt));
    PasswordRecord record;
    record.kdf = Argon2idParameters{2, 19456, 1};
    for (const std::uint8_t byte : salt) {
      record.salt += "0123456789abcdef"[byte >> 4];
      record.salt += "0123456789abcdef"[byte & 15];
    }
    path.factors.emplace_back(record);
    path.secrets.push_back(*RandomSecret(SystemRandom(), 32));  // as if a KDF had made it
  }

  std::mt19937& generator_;
  std::vector<P256KeyPair> tokens_;
};

// Model: which secrets should open which path, and those that no longer should.
struct Model {
  std::vector<std::pair<std::string, std::vector<SecretBytes>>> paths;
  std::vector<std::pair<std::string, std::vector<SecretBytes>>> gone;
};

class Sequence {
 public:
  Sequence(std::mt19937& generator, Maker& maker, KeySigner& signer)
      : generator_(generator), maker_(maker), signer_(signer) {
    options_.trusted.push_back({JwkThumbprint(signer.PublicKey()), {}, {}});
    content_ = *RandomSecret(SystemRandom(), 1 + generator() % 80);
  }

  void Begin() {
    EnvelopeDraft draft;
    draft.envelope_id = *NewEnvelopeId(SystemRandom());
    draft.policy = "builtin-1";
    draft.key_name = "prod/db";
    draft.host = "db1";
    draft.created = draft.updated = "2026-01-01T00:00:00Z";
    draft.note = "kept";
    std::vector<EnrolledPath> paths;
    for (unsigned i = 0; i < 1 + generator_() % 3; ++i) paths.push_back(MakeNew());
    for (const EnrolledPath& path : paths)
      model_.paths.emplace_back(path.id, CopyAll(path.secrets));
    Take(Seal(draft, paths, content_, signer_, SystemRandom()));
    Check();
  }

  void Edit() {
    const std::size_t via = generator_() % model_.paths.size();
    const auto opened = OpenWith(*sealed_, via, model_.paths[via].second);
    ASSERT_TRUE(opened);
    std::vector<NextPath> next;
    Model after;
    for (auto& gone : model_.gone) after.gone.push_back(std::move(gone));
    std::set<std::string> kept;
    for (std::size_t index = 0; index < model_.paths.size(); ++index) {
      auto& [id, secrets] = model_.paths[index];
      const unsigned what = generator_() % 8;
      const bool last = index + 1 == model_.paths.size() && next.empty();
      if (what == 0 && !last) {  // removed
        after.gone.emplace_back(id, CopyAll(secrets));
      } else if (what == 1) {  // made again under its id
        after.gone.emplace_back(id, CopyAll(secrets));
        AddMade(maker_.Make(id), next, after);
      } else if (what == 2) {  // another one in its place
        after.gone.emplace_back(id, CopyAll(secrets));
        AddMade(MakeNew(), next, after);
      } else {
        after.paths.emplace_back(id, CopyAll(secrets));
        next.emplace_back(KeptPath{index});
        kept.insert(id);
      }
    }
    while (next.size() < kMaxPaths && generator_() % 3 == 0) AddMade(MakeNew(), next, after);
    std::map<std::string, PathRecord> before;
    for (const PathRecord& path : sealed_->header().paths) before[path.id] = path;
    const Header old = sealed_->header();
    const std::string previous = EncodeBase64Url(sealed_->hash());
    const SealedEnvelope old_sealed = *sealed_;
    const std::vector<SecretBytes> via_secrets = CopyAll(model_.paths[via].second);
    model_ = std::move(after);
    Take(Reseal(old_sealed, *opened,
                {"corp", "2026-02-0" + std::to_string(1 + generator_() % 9) + "T00:00:00Z"}, next,
                signer_, SystemRandom()));
    const Header& header = sealed_->header();
    EXPECT_EQ(header.revision, old.revision + 1);
    EXPECT_EQ(header.previous, previous);
    EXPECT_EQ(
        std::tie(header.envelope_id, header.key_name, header.key_version, header.created,
                 header.host, header.note),
        std::tie(old.envelope_id, old.key_name, old.key_version, old.created, old.host, old.note));
    EXPECT_EQ(header.policy, "corp");
    for (const PathRecord& path : header.paths) {
      if (kept.contains(path.id)) {
        EXPECT_TRUE(SamePath(path, before[path.id])) << path.id;
      } else {
        ExpectFresh(path);
      }
    }
    Check();
    EXPECT_TRUE(OpenWith(old_sealed, via, via_secrets)) << "an old copy opens as it did";
  }

 private:
  EnrolledPath MakeNew() { return maker_.Make("p" + std::to_string(num_ids_++)); }

  static void AddMade(EnrolledPath path, std::vector<NextPath>& next, Model& after) {
    after.paths.emplace_back(path.id, CopyAll(path.secrets));
    next.emplace_back(std::move(path));
  }

  void Take(const Result<SealedBytes>& made) {
    ASSERT_TRUE(made) << made.error().message();
    auto read = SealedEnvelope::Read(AsBytes(made->file), options_);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->hash(), made->hash);
    EXPECT_TRUE(seen_.insert(EncodeBase64Url(made->hash)).second);
    sealed_.emplace(std::move(*read));
    if (sealed_->header().revision > 1) return;
    for (const PathRecord& path : sealed_->header().paths) ExpectFresh(path);
  }

  void ExpectFresh(const PathRecord& path) {
    EXPECT_TRUE(seen_.insert(EncodeBase64Url(path.wrapped_key.iv)).second);
    EXPECT_TRUE(seen_.insert(EncodeBase64Url(path.wrapped_key.ciphertext)).second);
    EXPECT_TRUE(seen_.insert(EncodeBase64Url(path.drill_key)).second);
    for (const FactorRecord& factor : path.factors) {
      if (const auto* ecdh = std::get_if<Pkcs11EcdhRecord>(&factor)) {
        EXPECT_TRUE(seen_.insert(EncodeBase64Url(ecdh->epk)).second);
      } else if (const auto* password = std::get_if<PasswordRecord>(&factor)) {
        EXPECT_TRUE(seen_.insert(password->salt).second);
      }
    }
  }

  // Check: every path opens by its own secrets, and by no others that ever were.
  void Check() {
    const auto& paths = sealed_->header().paths;
    ASSERT_EQ(paths.size(), model_.paths.size());
    for (std::size_t index = 0; index < paths.size(); ++index) {
      EXPECT_EQ(paths[index].id, model_.paths[index].first);
      const auto opened = OpenWith(*sealed_, index, model_.paths[index].second);
      ASSERT_TRUE(opened) << paths[index].id << ": " << opened.error().message();
      EXPECT_TRUE(opened->content().EqualsConstantTime(content_));
      for (const auto* others : {&model_.paths, &model_.gone}) {
        for (const auto& other : *others) {
          if (&other == &model_.paths[index]) continue;
          EXPECT_FALSE(OpenWith(*sealed_, index, other.second)) << paths[index].id;
        }
      }
    }
  }

  std::mt19937& generator_;
  Maker& maker_;
  KeySigner& signer_;
  ReadOptions options_;
  SecretBytes content_;
  std::optional<SealedEnvelope> sealed_;
  Model model_;
  std::set<std::string> seen_;
  int num_ids_ = 0;
};

TEST(Edit, ExactlyThePathsThatShouldOpenDo) {
  std::mt19937 generator(kSeed);
  Maker maker(generator);
  KeySigner signer;
  int num_edits = 0;
  for (int i = 0; i < kNumSequences && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", sequence " + std::to_string(i));
    Sequence sequence(generator, maker, signer);
    sequence.Begin();
    for (unsigned edit = 0; edit < 1 + generator() % kMaxEdits; ++edit, ++num_edits) {
      sequence.Edit();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_GT(num_edits, kNumSequences);
}

struct Made {
  Made() : maker(generator) {
    EnvelopeDraft draft;
    draft.envelope_id = *NewEnvelopeId(SystemRandom());
    draft.policy = "builtin-1";
    draft.key_name = "k";
    draft.host = "h";
    draft.created = draft.updated = "2026-01-01T00:00:00Z";
    paths.push_back(maker.Make("a"));
    const SecretBytes content = *RandomSecret(SystemRandom(), 32);
    const auto made = *Seal(draft, paths, content, signer, SystemRandom());
    ReadOptions options;
    options.trusted.push_back({JwkThumbprint(signer.PublicKey()), {}, {}});
    sealed.emplace(*SealedEnvelope::Read(AsBytes(made.file), options));
  }
  Result<SealedBytes> Edit(const std::vector<NextPath>& next) {
    const auto opened = OpenWith(*sealed, 0, paths[0].secrets);
    return Reseal(*sealed, *opened, {"p", "2026-01-02T00:00:00Z"}, next, signer, SystemRandom());
  }
  std::mt19937 generator{kSeed};
  Maker maker;
  KeySigner signer;
  std::vector<EnrolledPath> paths;
  std::optional<SealedEnvelope> sealed;
};

TEST(Edit, RefusesWhatNoReaderWouldTake) {
  Made made;
  EXPECT_EQ(made.Edit({}).error().failure(), Failure::kFormat);
  std::vector<NextPath> twice;
  twice.emplace_back(KeptPath{0});
  twice.emplace_back(KeptPath{0});
  EXPECT_EQ(made.Edit(twice).error().failure(), Failure::kFormat);
  std::vector<NextPath> many;
  for (std::size_t i = 0; i <= kMaxPaths; ++i) {
    many.emplace_back(made.maker.Make("p" + std::to_string(i)));
  }
  EXPECT_EQ(made.Edit(many).error().failure(), Failure::kLimit);
}

}  // namespace
}  // namespace keyescrow::envelope
