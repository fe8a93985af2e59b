// A store whose rows, or whose file's bytes, were written by somebody else. Everything is read, as
// restores, listings and audits do; a restore's envelope is judged by its own signature.
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "agent/audit/event.h"
#include "agent/audit/merkle.h"
#include "agent/audit/verify.h"
#include "agent/store/sqlite_store.h"
#include "envelope/sealed_envelope.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keys.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 16384, .memory_mib = 96, .cpu_s = 4};

namespace {

using namespace agent;

// Columns by their type in the schema: t text, b blob, i integer.
struct Table {
  const char* insert;
  const char* types;
};
constexpr std::array<Table, 9> kTables = {{
    {"INSERT OR REPLACE INTO envelope (key_name, key_version, revision, envelope_id, sha256, "
     "created, log_seq, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
     "tiitbiib"},
    {"INSERT OR REPLACE INTO log_entry (seq, leaf_hash, key_name, bytes) VALUES (?, ?, ?, ?)",
     "ibtb"},
    {"INSERT OR REPLACE INTO tile (id, bytes) VALUES (?, ?)", "ib"},
    {"INSERT OR REPLACE INTO checkpoint (size, p256_signed, note) VALUES (?, ?, ?)", "iit"},
    {"INSERT OR REPLACE INTO token (name, uri, module, spki, evidence, added, pin_source) "
     "VALUES (?, ?, ?, ?, ?, ?, ?)",
     "tttbtit"},
    {"INSERT OR REPLACE INTO trust (thumbprint, spki, name, hosts, keys, added, removed) "
     "VALUES (?, ?, ?, ?, ?, ?, ?)",
     "tbtttii"},
    {"INSERT OR REPLACE INTO path_state (key_name, key_version, path_id, proven, proven_revision, "
     "failed, failure) VALUES (?, ?, ?, ?, ?, ?, ?)",
     "titiiit"},
    {"INSERT OR REPLACE INTO destination (path, key_name, key_version, previous_path, time) "
     "VALUES (?, ?, ?, ?, ?)",
     "ttiti"},
    {"INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", "tt"},
}};

// State is a folder with a store of the real schema, without the triggers that keep its history,
// and the file's bytes to begin each input with.
class State {
 public:
  State() {
    FUZZ_CHECK(mkdtemp(folder_.data()) != nullptr);
    FUZZ_CHECK(store::SqliteStore::Create(folder_).has_value());
    sqlite3* handle = Open();
    const char* kPlain =
        "PRAGMA journal_mode = DELETE; PRAGMA user_version = 3;"
        "DROP TRIGGER log_entry_insert; DROP TRIGGER log_entry_update;"
        "DROP TRIGGER log_entry_delete; DROP TRIGGER tile_delete; DROP TRIGGER tile_update;"
        "DROP TRIGGER checkpoint_insert; DROP TRIGGER checkpoint_update;"
        "DROP TRIGGER checkpoint_delete; DROP TRIGGER envelope_insert;"
        "DROP TRIGGER envelope_update; DROP TRIGGER envelope_delete; DROP TRIGGER trust_delete;";
    FUZZ_CHECK(sqlite3_exec(handle, kPlain, nullptr, nullptr, nullptr) == SQLITE_OK);
    sqlite3_close(handle);
    std::ifstream stream(file(), std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(stream), {});
  }
  ~State() { std::filesystem::remove_all(folder_); }

  const std::string& folder() const { return folder_; }
  std::string file() const { return folder_ + "/store.db"; }
  const std::string& bytes() const { return bytes_; }

  sqlite3* Open() const {
    sqlite3* handle = nullptr;
    FUZZ_CHECK(sqlite3_open(file().c_str(), &handle) == SQLITE_OK);
    return handle;
  }

  // Reset puts the file back, changed by `patches`: a 16-bit place in 16 bytes, and a field.
  void Reset(Input* patches) const {
    for (const char* suffix : {"-wal", "-shm", "-journal"}) unlink((file() + suffix).c_str());
    std::string content = bytes_;
    while (patches != nullptr && !patches->empty()) {
      const std::size_t at = std::size_t{patches->U16()} * 16 % content.size();
      const ByteView patch = patches->Take(patches->U8());
      content.replace(at, std::min(patch.size(), content.size() - at),
                      AsText(patch).substr(0, content.size() - at));
    }
    std::ofstream(file(), std::ios::binary) << content;
    chmod(file().c_str(), 0600);
  }

 private:
  std::string folder_ =
      std::filesystem::is_directory("/dev/shm") ? "/dev/shm/ks-XXXXXX" : "/tmp/ks-XXXXXX";
  std::string bytes_;
};

const State& TheState() {
  static const State kState;
  return kState;
}

void InsertRow(sqlite3* handle, Input& input) {
  const Table& table = kTables[input.U8() % kTables.size()];
  sqlite3_stmt* statement = nullptr;
  FUZZ_CHECK(sqlite3_prepare_v2(handle, table.insert, -1, &statement, nullptr) == SQLITE_OK);
  int column = 0;
  for (const char* type = table.types; *type != '\0'; ++type) {
    ++column;
    if (*type == 'i') {
      // One byte is enough for the small numbers that mean something.
      const std::uint8_t small = input.U8();
      sqlite3_bind_int64(statement, column,
                         small != 0xff ? small : static_cast<std::int64_t>(input.U64()));
      continue;
    }
    const ByteView value = input.Field();
    const auto size = static_cast<int>(value.size());
    if (*type == 't') {
      sqlite3_bind_text(statement, column, AsText(value).data(), size, SQLITE_TRANSIENT);
    } else {
      sqlite3_bind_blob(statement, column, size == 0 ? "" : AsText(value).data(), size,
                        SQLITE_TRANSIENT);
    }
  }
  sqlite3_step(statement);  // a row that the table's rules refuse is not there
  sqlite3_finalize(statement);
}

void Check(const Status& status) {
  if (!status) CheckError(status.error());
}

void ReadLog(store::SqliteStore& store) {
  const auto head = store.Head();
  if (!head) return CheckError(head.error());
  const audit::TileReader read = [&](unsigned level, std::uint64_t index) {
    return store.Tile(level, index);
  };
  if (auto tree = audit::TreeAppender::Load(head->size, read)) tree->Root();
  if (auto proof = audit::InclusionProof(head->size / 2, head->size, read); !proof) {
    CheckError(proof.error());
  }
  audit::LogVerifier verifier("log",
                              {audit::NoteKey::Ed25519("log", Bytes32{1}),
                               audit::NoteKey::P256("log", FixedKeyPair().Public())},
                              read);
  std::uint64_t num_entries = 0;
  Check(store.Entries(0, "", [&](const store::LogEntry& entry) {
    verifier.Entry(entry.seq, entry.bytes, entry.leaf_hash);
    return ++num_entries < 1000;
  }));
  Check(store.Checkpoints(0, [&](std::uint64_t size, std::string_view note) {
    verifier.Checkpoint(size, note);
    return true;
  }));
  const auto report = verifier.Finish();
  if (!report) return CheckError(report.error());
  // Nobody signed: an intact log is an empty one.
  FUZZ_CHECK(!report->Intact() || report->num_checkpoints == 0);
  FUZZ_CHECK(report->findings.size() <= audit::kMaxFindings + 1);
}

void ReadAll(store::SqliteStore& store) {
  ReadLog(store);
  store::EscrowStore::EnvelopeQuery query{
      .key_name = "", .all_revisions = true, .with_bytes = true};
  std::vector<std::string> names = {"prod/db"};
  Check(store.Envelopes(query, [&](const store::EnvelopeRecord& row) {
    names.push_back(row.key_name);
    FUZZ_CHECK(!envelope::SealedEnvelope::Read(row.bytes, {}));
    (void)envelope::SealedEnvelope::Read(row.bytes, {.trusted = {}, .accept_unknown_agent = true})
        .has_value();
    return names.size() < 100;
  }));
  for (const std::string& name : names) {
    if (auto row = store.FindEnvelope(name, std::nullopt); !row) CheckError(row.error());
    if (auto states = store.PathStates(name); !states) CheckError(states.error());
  }
  if (auto tokens = store.Tokens(); !tokens) CheckError(tokens.error());
  if (auto token = store.FindToken("ops"); !token) CheckError(token.error());
  if (auto trust = store.Trust(); !trust) CheckError(trust.error());
  if (auto trust = store.FindTrust("a"); !trust) CheckError(trust.error());
  if (auto destinations = store.Destinations(); !destinations) CheckError(destinations.error());
  if (auto setting = store.GetSetting("a"); !setting) CheckError(setting.error());
  if (auto seq = store.ImportedSeq(Bytes16{}); !seq) CheckError(seq.error());
}

}  // namespace

void Prepare() { TheState(); }

void VisitLargest(Feed feed) {
  // Rows of 64 KiB in each table, and a log that begins at the largest number.
  Bytes input = {0};
  for (std::uint8_t table = 0; table < kTables.size(); ++table) {
    input.push_back(table);
    for (int column = 0; column < 8; ++column) input.insert(input.end(), 66000, 0xff);
  }
  feed(input);
  Bytes entry = {0, 1, 0xff};
  entry.insert(entry.end(), 8, 0x7f);
  entry.insert(entry.end(), {0, 32});
  entry.insert(entry.end(), 32, 1);
  entry.insert(entry.end(), {0, 0, 0, 1, 'x'});
  feed(entry);
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow::fuzz;
  const State& state = TheState();
  Input input(data, size);
  const bool patches = (input.U8() & 1) != 0;
  state.Reset(patches ? &input : nullptr);
  if (!patches) {
    sqlite3* handle = state.Open();
    sqlite3_exec(handle, "PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; BEGIN", nullptr,
                 nullptr, nullptr);
    while (!input.empty()) InsertRow(handle, input);
    sqlite3_exec(handle, "COMMIT", nullptr, nullptr, nullptr);
    sqlite3_close(handle);
  }
  auto store = store::SqliteStore::Open(state.folder());
  if (!store) {
    CheckError(store.error());
    return 0;
  }
  ReadAll(**store);
  return 0;
}
