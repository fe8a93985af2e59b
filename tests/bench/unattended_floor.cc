// unattended_floor: the floor of unattended backups: a bare loop of the same cryptography and
// commits.
//
//   unattended_floor STATE NUM [BATCH]
//
// STATE was made by `keyescrow init --tpm none`. For each of NUM keys of 32 bytes: FK, an ephemeral
// P-256 pair, ECDH with a public half, the Concat KDF, A256CBC-HS512 of FK and of the key, HKDF, an
// ES256 signature and its verification, the hashes of envelope and entry, and the fingerprint's
// HMAC; after BATCH of them (64) one commit by the agent's own journal, with rows of an envelope's
// size. No JSON of an envelope, no policy, no file of a key, no parsing. Prints seconds, one line
// of JSON.
#include <fmt/core.h>
#include <time.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "agent/usecases/journal.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/jwe.h"
#include "envelope/recovery_key.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kEnvelopeBytes =
    3400;  // one path to a recovery key behind password and token

template <typename T>
T Must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "{}\n", result.error().message());
    std::exit(1);
  }
  return std::move(*result);
}

double Seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int Run(const std::string& state, std::uint64_t num_keys, std::size_t batch) {
  const AgentIdentity identity = Must(LoadAgentIdentity(state));
  FileSigner signer = Must(FileSigner::Load(state, identity));
  JournalOptions options;
  options.state_dir = state;
  options.identity = identity;
  options.ed25519_seed = Must(LoadEd25519Seed(state));
  options.signer = &signer;
  Journal journal = Must(Journal::Open(std::move(options)));
  const P256KeyPair recovery = Must(P256KeyPair::Generate());
  const SecretBytes mac_key = Must(RandomSecret(SystemRandom(), 32));
  std::vector<audit::Event> events;
  store::Change change;
  const double begin = Seconds();
  for (std::uint64_t number = 0; number < num_keys; ++number) {
    const SecretBytes content = Must(RandomSecret(SystemRandom(), 32));
    const SecretBytes file_key = Must(RandomSecret(SystemRandom(), 32));
    const std::string name = fmt::format("floor/{:06}", number);
    const auto wrapped =
        Must(envelope::WrapFileKey(recovery.Public(), name, file_key, SystemRandom()));
    const SecretBytes content_key = Must(HkdfSha512(file_key, "keyescrow1|content|" + name, 64));
    const auto sealed =
        Must(envelope::EncryptJwe(content_key, wrapped.header, content, SystemRandom()));
    store::EnvelopeRecord row;
    row.key_name = name;
    row.key_version = 1;
    row.revision = 1;
    row.envelope_id = EncodeBase64Url(ByteView(sealed.tag).first(16));
    row.bytes = Bytes(kEnvelopeBytes, static_cast<std::uint8_t>(number));
    row.sha256 = Sha256(row.bytes);
    row.created = 1'700'000'000;
    row.event_index = events.size();
    const Bytes64 signature = Must(signer.SignDigest(row.sha256));
    if (!VerifyEs256(signer.PublicKey(), row.sha256, signature)) return 1;
    store::FingerprintRecord fingerprint;
    fingerprint.key_name = name;
    fingerprint.key_version = 1;
    fingerprint.mac = HmacSha256(mac_key.Expose(), {AsBytes(name), content.Expose()});
    audit::Event& event = events.emplace_back();
    event.type = audit::EventType::kEscrowCreated;
    event.key = audit::EventKey{name, 1};
    event.envelope = audit::EventEnvelope{row.envelope_id, 1, row.sha256};
    event.policy = audit::EventPolicy{"builtin-1", 0, {}};
    event.paths = {{"recovery-key-team",
                    {{"pkcs11-rsa", "ops", Bytes32{7}, ""},
                     {"password", "", std::nullopt, "argon2id t=4 m=262144 p=4"}}}};
    change.envelopes.push_back(std::move(row));
    change.fingerprints.push_back(std::move(fingerprint));
    if (events.size() < batch && number + 1 < num_keys) continue;
    Must(journal.Append(std::move(events), change));
    events = {};
    change = {};
  }
  const double seconds = Seconds() - begin;
  fmt::print("{{\"keys\":{},\"batch\":{},\"seconds\":{:.3f},\"per_second\":{:.0f}}}\n", num_keys,
             batch, seconds, static_cast<double>(num_keys) / seconds);
  return 0;
}

}  // namespace
}  // namespace keyescrow::agent

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: unattended_floor STATE NUM [BATCH]\n");
    return 2;
  }
  const auto number = [&](int index) { return std::strtoull(argv[index], nullptr, 10); };
  return keyescrow::agent::Run(argv[1], number(2), argc > 3 ? number(3) : 64);
}
