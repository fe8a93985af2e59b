#include "tests/bench/store_maker.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <algorithm>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/path_set.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"
#include "envelope/base/random.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {
namespace {

constexpr const char* kHost = "db1";
constexpr const char* kPolicy = "builtin-1";
constexpr unsigned kModulusBytes = 384;
constexpr std::size_t kSecretBytes = 32;

Error Failed(const char* what) {
  return Error(ErrorCode::kInternal, Action::kReportBug, what, "report this");
}

Result<Bytes> MakeTokenKey() {
  EVP_PKEY* key = EVP_RSA_gen(kModulusBytes * 8);
  std::uint8_t* der = nullptr;
  const int size = key == nullptr ? -1 : i2d_PUBKEY(key, &der);
  Bytes spki;
  if (size > 0) spki.assign(der, der + size);
  OPENSSL_free(der);
  EVP_PKEY_free(key);
  if (spki.empty()) return Failed("no RSA key could be made");
  return spki;
}

}  // namespace

struct StoreMaker::Impl {
  std::unique_ptr<FileSigner> signer;  // the journal borrows it
  Journal journal;
  Bytes token_spki;
  SecretBytes content;
  std::uint64_t num_made = 0;

  Result<std::vector<envelope::EnrolledPath>> EnrollPath() const;
};

Result<std::vector<envelope::EnrolledPath>> StoreMaker::Impl::EnrollPath() const {
  envelope::EnrolledPath path;
  path.id = "token-ops";
  envelope::Pkcs11RsaRecord token;
  token.token = "ops";
  token.spki = token_spki;
  token.uri = "pkcs11:token=ops;object=escrow;type=private";
  token.wrapped.resize(kModulusBytes);
  RETURN_IF_ERROR(SystemRandom().Fill(token.wrapped));
  envelope::PasswordRecord password;
  password.kdf = envelope::Argon2idParameters{};
  Bytes16 salt;
  RETURN_IF_ERROR(SystemRandom().Fill(salt));
  for (const std::uint8_t byte : salt) password.salt += fmt::format("{:02x}", byte);
  path.factors = {std::move(token), std::move(password)};
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(SecretBytes secret, RandomSecret(SystemRandom(), kSecretBytes));
    path.secrets.push_back(std::move(secret));
  }
  std::vector<envelope::EnrolledPath> paths;
  paths.push_back(std::move(path));
  return paths;
}

StoreMaker::StoreMaker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StoreMaker::StoreMaker(StoreMaker&&) noexcept = default;
StoreMaker& StoreMaker::operator=(StoreMaker&&) noexcept = default;
StoreMaker::~StoreMaker() = default;

std::uint64_t StoreMaker::num_made() const { return impl_->num_made; }
Journal& StoreMaker::journal() { return impl_->journal; }

Result<StoreMaker> StoreMaker::Create(const std::string& state_dir) {
  AgentSecrets secrets;
  ASSIGN_OR_RETURN(secrets.ed25519_seed, RandomSecret(SystemRandom(), kSecretBytes));
  auto pair = P256KeyPair::Generate();
  if (!pair) return std::move(pair).error();
  ASSIGN_OR_RETURN(secrets.p256_scalar, pair->Scalar());
  AgentIdentity identity;
  identity.host = kHost;
  identity.origin = audit::LogOrigin(kHost, JwkThumbprint(pair->Public()));
  identity.created = "2026-01-01T00:00:00Z";
  identity.p256 = pair->Public();
  ASSIGN_OR_RETURN(identity.ed25519, Ed25519PublicKey(secrets.ed25519_seed));
  RETURN_IF_ERROR(CreateAgentState(state_dir, identity, secrets));
  return Open(state_dir);
}

Result<StoreMaker> StoreMaker::Open(const std::string& state_dir) {
  ASSIGN_OR_RETURN(AgentIdentity identity, LoadAgentIdentity(state_dir));
  ASSIGN_OR_RETURN(FileSigner loaded, FileSigner::Load(state_dir, identity));
  auto signer = std::make_unique<FileSigner>(std::move(loaded));
  JournalOptions options;
  options.state_dir = state_dir;
  options.identity = std::move(identity);
  options.signer = signer.get();
  ASSIGN_OR_RETURN(options.ed25519_seed, LoadEd25519Seed(state_dir));
  ASSIGN_OR_RETURN(Journal journal, Journal::Open(std::move(options)));
  ASSIGN_OR_RETURN(const store::LogHead head, journal.store().Head());
  ASSIGN_OR_RETURN(Bytes spki, MakeTokenKey());
  ASSIGN_OR_RETURN(SecretBytes content, RandomSecret(SystemRandom(), kSecretBytes));
  return StoreMaker(std::unique_ptr<Impl>(new Impl{
      std::move(signer), std::move(journal), std::move(spki), std::move(content), head.size}));
}

Result<MadeRecord> StoreMaker::Make() {
  Impl& impl = *impl_;
  const std::uint64_t number = impl.num_made;
  envelope::EnvelopeDraft draft;
  ASSIGN_OR_RETURN(draft.envelope_id, envelope::NewEnvelopeId(SystemRandom()));
  draft.policy = kPolicy;
  draft.key_name = fmt::format("load/{:03}/{:06}", number / 1'000'000, number % 1'000'000);
  draft.host = kHost;
  const std::int64_t now = SystemClock().NowUnixSeconds();
  draft.created = FormatUtc(now);
  draft.updated = draft.created;
  ASSIGN_OR_RETURN(const auto paths, impl.EnrollPath());
  ASSIGN_OR_RETURN(const envelope::SealedBytes sealed,
                   envelope::Seal(draft, paths, impl.content, *impl.signer, SystemRandom()));
  MadeRecord made;
  made.envelope.key_name = draft.key_name;
  made.envelope.key_version = draft.key_version;
  made.envelope.revision = draft.revision;
  made.envelope.envelope_id = draft.envelope_id;
  made.envelope.sha256 = sealed.hash;
  made.envelope.created = now;
  made.envelope.bytes = ToBytes(AsBytes(sealed.file));
  made.event.type = audit::EventType::kEscrowCreated;
  made.event.key = audit::EventKey{draft.key_name, draft.key_version};
  made.event.envelope = audit::EventEnvelope{draft.envelope_id, draft.revision, sealed.hash};
  made.event.policy = audit::EventPolicy{draft.policy, 0, {}};
  envelope::PathRecord path;
  path.id = paths.front().id;
  path.factors = paths.front().factors;
  made.event.paths = DescribePaths({&path});
  envelope::Header header;
  header.host = draft.host;
  header.paths.push_back(std::move(path));
  made.envelope.path_set = PathSetDigest(header);
  ++impl.num_made;
  return made;
}

Status StoreMaker::Commit(std::vector<MadeRecord> records) {
  std::vector<audit::Event> events;
  store::Change change;
  for (MadeRecord& record : records) {
    record.envelope.event_index = events.size();
    events.push_back(std::move(record.event));
    change.envelopes.push_back(std::move(record.envelope));
  }
  RETURN_IF_ERROR(impl_->journal.Append(std::move(events), change));
  return Ok();
}

Status StoreMaker::Add(std::uint64_t count, std::uint64_t batch) {
  while (count > 0) {
    std::vector<MadeRecord> records;
    for (const std::uint64_t size = std::min(count, batch); records.size() < size; --count) {
      ASSIGN_OR_RETURN(MadeRecord made, Make());
      records.push_back(std::move(made));
    }
    RETURN_IF_ERROR(Commit(std::move(records)));
  }
  return Ok();
}

}  // namespace keyescrow::agent
