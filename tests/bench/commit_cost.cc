// commit_cost: what a commit costs as the store grows, and what a bulk commit costs beside a bare
// SQLite loop that writes the same rows and makes the same signatures.
//
//   commit_cost FOLDER NUM_BACKUPS [NUM_PAIRS]
//
// FOLDER must not exist. Two stores are filled through Journal::Append, one to 1,000 backups and
// one to NUM_BACKUPS; then pairs of single commits are measured, one store after the other, and
// pairs of 10 bulk commits of 100 after NUM_BACKUPS, but at most 20,000. Prints medians, wall and
// CPU time, and the medians of the pairs' ratios, one line of JSON. The bare loop has the pragmas,
// tables and row sizes of the store, its index of envelopes, reused statements, one Ed25519 and one
// P-256 signature a commit; no triggers, no JSON, no hashing.
#include <fcntl.h>
#include <fmt/core.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/journal.h"
#include "envelope/base/base64url.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/ed25519_pair.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kEnvelopeBytes = 3000;
constexpr std::uint64_t kSmall = 1000;
constexpr std::uint64_t kBulkFill = 20000;
constexpr std::size_t kBulk = 100;
constexpr int kSinglesOfAPair = 20;
constexpr int kBulksOfAPair = 10;

template <typename T>
T Must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "{}\n", result.error().message());
    std::exit(1);
  }
  return std::move(*result);
}
void Must(const Status& status) {
  if (status) return;
  fmt::print(stderr, "{}\n", status.error().message());
  std::exit(1);
}

double Seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Cost {
  double wall_us = 0;
  double cpu_us = 0;
};

template <typename Work>
Cost Measure(int times, Work work) {
  const double wall = Seconds(CLOCK_MONOTONIC);
  const double cpu = Seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < times; ++i) work();
  return {1e6 * (Seconds(CLOCK_MONOTONIC) - wall) / times,
          1e6 * (Seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / times};
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// NameOf spreads the names over the whole index, as those of many hosts' keys are.
std::string NameOf(std::uint64_t number) {
  const Bytes32 hash = Sha256(AsBytes(std::to_string(number)));
  return "prod/" + EncodeBase64Url(ByteView(hash).first(12));
}

struct Backup {
  audit::Event event;
  store::EnvelopeRecord row;
};

Backup MakeBackup(std::uint64_t number) {
  Backup backup;
  store::EnvelopeRecord& row = backup.row;
  row.key_name = NameOf(number);
  row.key_version = 1;
  row.envelope_id = EncodeBase64Url(ByteView(Sha256(AsBytes(row.key_name))).first(16));
  row.created = 1'700'000'000;
  row.bytes = Bytes(kEnvelopeBytes, static_cast<std::uint8_t>(number));
  row.sha256 = Sha256(row.bytes);
  audit::Event& event = backup.event;
  event.type = audit::EventType::kEscrowCreated;
  event.key = audit::EventKey{row.key_name, 1};
  event.envelope = audit::EventEnvelope{row.envelope_id, 0, row.sha256};
  event.policy = audit::EventPolicy{"builtin-1", 0, {}};
  event.paths = {{"token-ops",
                  {{"pkcs11-rsa", "ops", Bytes32{7}, ""},
                   {"password", "", std::nullopt, "argon2id t=4 m=262144 p=4"}}}};
  event.reason = "nightly";
  return backup;
}

// Ours: a state with an agent key in a file, as on a host without a TPM.
class Ours {
 public:
  explicit Ours(const std::string& folder) {
    AgentSecrets secrets;
    secrets.ed25519_seed = Must(RandomSecret(SystemRandom(), 32));
    P256KeyPair pair = Must(P256KeyPair::Generate());
    secrets.p256_scalar = Must(pair.Scalar());
    AgentIdentity identity;
    identity.host = "bench";
    identity.origin = audit::LogOrigin("bench", JwkThumbprint(pair.Public()));
    identity.created = "2026-01-01T00:00:00Z";
    identity.p256 = pair.Public();
    identity.ed25519 = Must(Ed25519PublicKey(secrets.ed25519_seed));
    Must(CreateAgentState(folder, identity, secrets));
    signer_.emplace(std::move(pair));
    JournalOptions options;
    options.state_dir = folder;
    options.identity = identity;
    options.ed25519_seed = std::move(secrets.ed25519_seed);
    options.signer = &*signer_;
    journal_.emplace(Must(Journal::Open(std::move(options))));
  }

  void Commit(std::size_t num_backups) {
    std::vector<audit::Event> events;
    store::Change change;
    for (std::size_t i = 0; i < num_backups; ++i) {
      Backup backup = MakeBackup(next_++);
      backup.row.event_index = i;
      events.push_back(std::move(backup.event));
      change.envelopes.push_back(std::move(backup.row));
    }
    static_cast<void>(Must(journal_->Append(std::move(events), change)));
  }
  void FillTo(std::uint64_t size) {
    while (next_ < size) Commit(std::min<std::uint64_t>(kBulk, size - next_));
  }

 private:
  std::optional<FileSigner> signer_;
  std::optional<Journal> journal_;
  std::uint64_t next_ = 0;
};

// Bare: the same rows by the shortest loop.
class Bare {
 public:
  explicit Bare(const std::string& path)
      : log_key_(Must(Ed25519Pair::FromSeed(Must(RandomSecret(SystemRandom(), 32))))),
        pair_(Must(P256KeyPair::Generate())) {
    Check(sqlite3_open(path.c_str(), &handle_));
    Run("PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE log_entry (seq INTEGER PRIMARY KEY, leaf_hash BLOB NOT NULL, key_name TEXT,"
        " bytes BLOB NOT NULL) STRICT;"
        "CREATE TABLE tile (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;"
        "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, p256_signed INTEGER NOT NULL,"
        " note TEXT NOT NULL) STRICT;"
        "CREATE TABLE envelope (id INTEGER PRIMARY KEY, key_name TEXT NOT NULL, key_version INTEGER"
        " NOT NULL, revision INTEGER NOT NULL, envelope_id TEXT NOT NULL, sha256 BLOB NOT NULL,"
        " created INTEGER NOT NULL, log_seq INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;"
        "CREATE UNIQUE INDEX envelope_by_key ON envelope (key_name, key_version, revision);");
    entry_ = Prepare("INSERT INTO log_entry VALUES (?, ?, NULL, ?)");
    envelope_ = Prepare("INSERT INTO envelope VALUES (NULL, ?, 1, 0, ?, ?, 1700000000, ?, ?)");
    tile_ = Prepare("INSERT OR REPLACE INTO tile VALUES (?, ?)");
    checkpoint_ = Prepare("INSERT INTO checkpoint VALUES (?, 1, ?)");
    line_ = std::string(Must(audit::SerializeEvent(MakeBackup(0).event)).size() + 330, 'x');
  }
  ~Bare() {
    for (sqlite3_stmt* statement : {entry_, envelope_, tile_, checkpoint_}) {
      sqlite3_finalize(statement);
    }
    sqlite3_close(handle_);
  }

  void Commit(std::size_t num_backups) {
    // The backups come from outside in both: their making is not what is compared.
    std::vector<store::EnvelopeRecord> rows;
    for (std::size_t i = 0; i < num_backups; ++i) rows.push_back(MakeBackup(next_ + i).row);
    Run("BEGIN IMMEDIATE");
    for (const store::EnvelopeRecord& row : rows) {
      Blob(entry_, 2, row.sha256);
      Blob(entry_, 3, AsBytes(line_));
      sqlite3_bind_int64(entry_, 1, static_cast<sqlite3_int64>(next_));
      Step(entry_);
      Text(envelope_, 1, row.key_name);
      Text(envelope_, 2, row.envelope_id);
      Blob(envelope_, 3, row.sha256);
      sqlite3_bind_int64(envelope_, 4, static_cast<sqlite3_int64>(next_));
      Blob(envelope_, 5, row.bytes);
      Step(envelope_);
      ++next_;
    }
    const std::size_t width = (next_ % 256 == 0 ? 256 : next_ % 256) * 32;
    sqlite3_bind_int64(tile_, 1, static_cast<sqlite3_int64>(next_ / 256));
    Blob(tile_, 2, Bytes(width, 1));
    Step(tile_);
    const std::string text = std::string(120, 't');
    const Bytes64 ed25519 = Must(log_key_.Sign(AsBytes(text)));
    const Bytes64 p256 = Must(pair_.SignEs256(Sha256(AsBytes(text))));
    const std::string note = text + EncodeBase64Url(ed25519) + EncodeBase64Url(p256) + text + text;
    sqlite3_bind_int64(checkpoint_, 1, static_cast<sqlite3_int64>(next_));
    Text(checkpoint_, 2, note);
    Step(checkpoint_);
    Run("COMMIT");
  }
  void FillTo(std::uint64_t size) {
    while (next_ < size) Commit(std::min<std::uint64_t>(kBulk, size - next_));
  }

 private:
  void Check(int code) {
    if (code == SQLITE_OK || code == SQLITE_DONE) return;
    fmt::print(stderr, "{}\n", sqlite3_errmsg(handle_));
    std::exit(1);
  }
  void Run(const char* sql) { Check(sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr)); }
  sqlite3_stmt* Prepare(const char* sql) {
    sqlite3_stmt* statement = nullptr;
    Check(sqlite3_prepare_v2(handle_, sql, -1, &statement, nullptr));
    return statement;
  }
  void Step(sqlite3_stmt* statement) {
    Check(sqlite3_step(statement));
    sqlite3_reset(statement);
  }
  static void Blob(sqlite3_stmt* statement, int index, ByteView bytes) {
    sqlite3_bind_blob64(statement, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
  }
  static void Text(sqlite3_stmt* statement, int index, std::string_view text) {
    sqlite3_bind_text64(statement, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }

  Ed25519Pair log_key_;
  P256KeyPair pair_;
  sqlite3* handle_ = nullptr;
  sqlite3_stmt* entry_ = nullptr;
  sqlite3_stmt* envelope_ = nullptr;
  sqlite3_stmt* tile_ = nullptr;
  sqlite3_stmt* checkpoint_ = nullptr;
  std::string line_;
  std::uint64_t next_ = 0;
};

void Compare(const char* name, int pairs, auto first, auto second) {
  std::vector<double> wall[2], cpu[2], wall_ratio, cpu_ratio;
  for (int pair = 0; pair < pairs; ++pair) {
    const Cost costs[2] = {first(), second()};
    for (int side = 0; side < 2; ++side) {
      wall[side].push_back(costs[side].wall_us);
      cpu[side].push_back(costs[side].cpu_us);
    }
    wall_ratio.push_back(costs[1].wall_us / costs[0].wall_us);
    cpu_ratio.push_back(costs[1].cpu_us / costs[0].cpu_us);
  }
  fmt::print(
      "{{\"compared\":\"{}\",\"pairs\":{},\"first_us\":{:.1f},\"second_us\":{:.1f},"
      "\"ratio\":{:.3f},\"first_cpu_us\":{:.1f},\"second_cpu_us\":{:.1f},\"cpu_ratio\":{:.3f}}}\n",
      name, pairs, Median(wall[0]), Median(wall[1]), Median(wall_ratio), Median(cpu[0]),
      Median(cpu[1]), Median(cpu_ratio));
}

int Run(const std::string& folder, std::uint64_t num_backups, int pairs) {
  if (mkdir(folder.c_str(), 0700) != 0) {
    fmt::print(stderr, "{} cannot be made\n", folder);
    return 1;
  }
  {
    Ours small(folder + "/small");
    Ours large(folder + "/large");
    small.FillTo(kSmall);
    large.FillTo(num_backups);
    const auto single = [](Ours& ours) {
      return Measure(kSinglesOfAPair, [&] { ours.Commit(1); });
    };
    single(small), single(large);  // warm
    Compare(
        "a backup's commit, after 1,000 / after all", pairs, [&] { return single(small); },
        [&] { return single(large); });
  }
  Ours ours(folder + "/bulk");
  Bare bare(folder + "/bare.db");
  const auto fill = [&](auto& store) { store.FillTo(std::min(num_backups, kBulkFill)); };
  fill(ours), fill(bare);
  const auto bulk = [](auto& store) {
    return Measure(kBulksOfAPair, [&] { store.Commit(kBulk); });
  };
  Compare(
      "100 backups in one commit, ours / bare SQLite", pairs, [&] { return bulk(ours); },
      [&] { return bulk(bare); });
  return 0;
}

}  // namespace
}  // namespace keyescrow::agent

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    fmt::print(stderr, "usage: commit_cost FOLDER NUM_BACKUPS [NUM_PAIRS]\n");
    return 2;
  }
  return keyescrow::agent::Run(argv[1], std::strtoull(argv[2], nullptr, 10),
                               argc == 4 ? std::atoi(argv[3]) : 11);
}
