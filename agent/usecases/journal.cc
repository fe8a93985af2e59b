#include "agent/usecases/journal.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "agent/audit/checkpoint.h"
#include "agent/audit/merkle.h"
#include "agent/audit/note.h"
#include "agent/key_locations/apply_command.h"
#include "agent/usecases/imported_counts.h"
#include "agent/usecases/imported_event.h"
#include "agent/usecases/interrupted_restores.h"
#include "agent/usecases/journald.h"
#include "agent/usecases/log_seed.h"
#include "agent/usecases/process_facts.h"
#include "envelope/base/base64url.h"
#include "envelope/note_signer.h"

namespace keyescrow::agent {
namespace {

// The setting that remembers since when the agent key's line is missing: "<size> <T> <cause>".
constexpr const char* kMissingSetting = "p256_missing_since";
constexpr const char* kNoSigner = "no_signer";
constexpr std::size_t kMaxImportBytes = 1 << 20;

// TreeOf is the tree of the newest checkpoint, checked against it: else the next checkpoint would
// vouch for tiles that somebody changed. Errors: kLogDamaged; kAgentKeyUnavailable where the log is
// another agent's.
Result<audit::TreeAppender> TreeOf(const store::LogHead& head, const store::ReadTile& tile,
                                   const std::string& origin) {
  ASSIGN_OR_RETURN(audit::TreeAppender tree, audit::TreeAppender::Load(head.size, tile));
  if (head.size == 0) return tree;
  ASSIGN_OR_RETURN(const audit::Checkpoint newest,
                   audit::ParseCheckpoint(audit::NoteText(head.checkpoint)));
  if (newest.origin != origin) {
    return Error(ErrorCode::kAgentKeyUnavailable, Action::kCallOperator,
                 fmt::format("the log of the store is {}, and agent.json is of {}: nothing can be "
                             "logged",
                             newest.origin, origin),
                 "put the whole state folder back from one copy");
  }
  if (newest.size != head.size || newest.root != tree.Root()) {
    return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
                 "the log's tiles contradict its newest checkpoint",
                 "compare the store with a copy; a restore from an .escrow file with --state of an "
                 "empty folder still works");
  }
  return tree;
}

// SeqSetting names the setting that keeps the number of the newest entry of the event's kind.
std::optional<std::string_view> SeqSetting(const audit::Event& event) {
  switch (event.type) {
    case audit::EventType::kAnchorTpm:
      return event.outcome == audit::Outcome::kPending ? kAnchorIntentSetting : kAnchorSetting;
    case audit::EventType::kAnchorMismatch: return kAnchorMismatchSetting;
    case audit::EventType::kRestoreRequested: return kReleaseSetting;
    default: return std::nullopt;
  }
}

store::NewEntry MakeEntry(std::string_view line, const audit::Event& event) {
  store::NewEntry entry;
  entry.bytes = ToBytes(AsBytes(line));
  entry.leaf_hash = audit::LeafHash(entry.bytes);
  if (event.key) entry.key_name = event.key->name;
  return entry;
}

}  // namespace

struct Journal::Impl {
  JournalOptions options;
  std::unique_ptr<store::SqliteStore> store;
  envelope::Ed25519NoteSigner ed25519_signer;
  audit::NoteKey p256_key;
  std::vector<audit::NoteKey> keys;
  std::string signer_failure;  // why the signer is not asked again; "" while it is
  std::optional<audit::Actor> actor;
  std::string boot_id;
  JournaldSender journald{""};
  std::vector<JournaldEntry> told;  // of the commit under way
  // The tree of the checkpoint that this process committed last, so that bulk work does not hash
  // the open tiles again for each commit; and the one that the commit under way will leave.
  std::optional<audit::TreeAppender> tree;
  std::string tree_checkpoint;
  std::optional<audit::TreeAppender> next_tree;
  bool appended = false;
  bool ended_restores = false;  // EndRestores was done

  // EndRestores logs the end of restores whose process is gone, once in this process.
  Status EndRestores(bool clock_synced);
  // CountsAt returns the counts at a head, from its checkpoint or, once, from the whole log.
  Result<EventCounts> CountsAt(const store::LogHead& head);
  Status Fill(audit::Event& event, bool clock_synced);
  Result<store::LogAppend> Sign(const store::LogHead& head, const store::ReadTile& tile,
                                std::vector<store::NewEntry> entries);
  // Committed takes what the store returned for a commit of this journal.
  void Committed(const store::LogHead& head);
  // SignByAgentKey returns the signature line, or "" where the agent key cannot sign.
  std::string SignByAgentKey(std::string_view text);
  Result<store::LogAppend> Build(const store::LogHead& head, const store::ReadTile& tile,
                                 std::vector<audit::Event>& events);
};

Status CompleteEvent(audit::Event& event, Clock& clock, RandomSource& random) {
  RETURN_IF_ERROR(random.Fill(event.id));
  event.time = clock.NowUnixSeconds();
  event.boot_id = BootId();
  event.clock_synced = ClockSynchronized();
  if (!event.actor) event.actor = CurrentActor();
  return Ok();
}

std::string StatelessEventFileName(const Bytes16& id) {
  return fmt::format("keyescrow-restore-{}.json", EncodeBase64Url(id));
}

// Fill is CompleteEvent with what does not change in a process read once.
Status Journal::Impl::Fill(audit::Event& event, bool clock_synced) {
  if (boot_id.empty()) boot_id = BootId();
  if (!event.actor && !actor) actor = CurrentActor();
  if (!event.actor) event.actor = actor;
  RETURN_IF_ERROR(options.random->Fill(event.id));
  event.time = options.clock->NowUnixSeconds();
  event.boot_id = boot_id;
  event.clock_synced = clock_synced;
  event.host = options.identity.host;
  event.source = options.identity.origin;
  return Ok();
}

Result<EventCounts> Journal::Impl::CountsAt(const store::LogHead& head) {
  const std::string text = head.counts.value_or("");
  // Those of a version that counted imported events as the log's own are counted anew.
  const bool is_kept = head.counts && CountsAreOfOwn(text);
  if (is_kept || head.size == 0) return EventCounts::Parse(text);
  EventCounts counts;
  RETURN_IF_ERROR(store->Entries(0, "", [&](const store::LogEntry& entry) {
    counts.Add(AsText(entry.bytes));
    return true;
  }));
  return counts;
}

std::string Journal::Impl::SignByAgentKey(std::string_view text) {
  if (!signer_failure.empty()) return "";
  if (options.signer == nullptr) {
    signer_failure = kNoSigner;
    return "";
  }
  // Another key's signature under this key's id would make a note that every verifier refuses.
  if (!(options.signer->PublicKey() == *p256_key.p256)) {
    signer_failure = std::string(ErrorCodeName(ErrorCode::kAgentKeyUnavailable));
    return "";
  }
  auto line = audit::SignLineP256(p256_key, *options.signer, text);
  if (!line) {
    signer_failure = std::string(ErrorCodeName(line.error().code()));
    return "";
  }
  return std::move(*line);
}

void Journal::Impl::Committed(const store::LogHead& head) {
  tree = std::exchange(next_tree, std::nullopt);
  tree_checkpoint = head.checkpoint;
  journald.Send(told);
}

Result<store::LogAppend> Journal::Impl::Sign(const store::LogHead& head,
                                             const store::ReadTile& tile,
                                             std::vector<store::NewEntry> entries) {
  if (options.ed25519_seed.empty()) {
    // Whoever opened it without a seed may have found a wrong one.
    RETURN_IF_ERROR(LoadLogSeed(options.state_dir, options.identity));
    return Error(ErrorCode::kAgentKeyUnavailable, Action::kReportBug,
                 "the log was opened for reading alone", "report this");
  }
  store::LogAppend append;
  ASSIGN_OR_RETURN(EventCounts counts, CountsAt(head));
  // Where another process committed meanwhile, the tiles are read anew.
  const bool is_ours = tree && tree->size() == head.size && tree_checkpoint == head.checkpoint;
  if (is_ours) {
    next_tree = std::exchange(tree, std::nullopt);
  } else {
    ASSIGN_OR_RETURN(next_tree, TreeOf(head, tile, options.identity.origin));
  }
  told.clear();
  for (const store::NewEntry& entry : entries) {
    next_tree->Append(entry.leaf_hash);
    counts.Add(AsText(entry.bytes));
    if (!journald.wanted()) continue;
    told.push_back({head.size + told.size(), entry.leaf_hash, std::string(AsText(entry.bytes))});
  }
  append.counts = counts.Text();
  append.entries = std::move(entries);
  for (audit::Tile& changed : next_tree->ChangedTiles()) {
    // A tree that was kept tells of earlier commits' tiles too.
    const unsigned shift = 8 * changed.level;
    if (head.size >> shift == next_tree->size() >> shift) continue;
    append.tiles.push_back({changed.level, changed.index, std::move(changed.bytes)});
  }
  next_tree->TakeFilledTiles();
  const std::string text =
      audit::FormatCheckpoint({options.identity.origin, next_tree->size(), next_tree->Root()});
  ASSIGN_OR_RETURN(const std::string ed25519_line,
                   ed25519_signer.SignLine(options.ed25519_seed, text));
  const std::string p256_line = SignByAgentKey(text);
  append.checkpoint = text + "\n" + ed25519_line + p256_line;
  append.p256_signed = !p256_line.empty();
  if (append.p256_signed != head.p256_signed) {
    store::Setting setting{kMissingSetting, std::nullopt};
    if (!append.p256_signed) {
      setting.value = fmt::format("{} {} {}", next_tree->size(),
                                  FormatUtc(options.clock->NowUnixSeconds()), signer_failure);
    }
    append.settings.push_back(std::move(setting));
  }
  return append;
}

Result<store::LogAppend> Journal::Impl::Build(const store::LogHead& head,
                                              const store::ReadTile& tile,
                                              std::vector<audit::Event>& events) {
  if (head.migrated_from) {
    audit::Event& migrated = events.emplace_back();
    migrated.type = audit::EventType::kStoreMigrated;
    migrated.reason = fmt::format("schema {} to the current one", *head.migrated_from);
    RETURN_IF_ERROR(Fill(migrated, ClockSynchronized()));
  }
  std::vector<store::NewEntry> entries;
  std::vector<store::Setting> settings;
  std::uint64_t seq = head.size;
  RETURN_IF_ERROR(UpdateOpenRestores(events, seq, *store, settings));
  std::optional<Bytes32> previous;
  if (head.size > 0) previous = audit::CheckpointHash(audit::NoteText(head.checkpoint));
  for (audit::Event& event : events) {
    if (const auto setting = SeqSetting(event)) {
      settings.push_back({std::string(*setting), std::to_string(seq)});
    }
    event.source_seq = seq++;
    event.prev_checkpoint = previous;
    ASSIGN_OR_RETURN(const std::string line, audit::SerializeEvent(event));
    entries.push_back(MakeEntry(line, event));
  }
  ASSIGN_OR_RETURN(store::LogAppend append, Sign(head, tile, std::move(entries)));
  for (store::Setting& setting : settings) append.settings.push_back(std::move(setting));
  append.clears_migration = head.migrated_from.has_value();
  return append;
}

Status Journal::Impl::EndRestores(bool clock_synced) {
  if (std::exchange(ended_restores, true)) return Ok();
  ASSIGN_OR_RETURN(const auto seen, store->GetSetting(kOpenRestoresSetting));
  if (!seen) return Ok();
  std::vector<OpenRestore> gone = ParseOpenRestores(*seen);
  std::erase_if(gone, [](const OpenRestore& restore) { return StillRuns(restore.process); });
  if (gone.empty()) return Ok();
  std::vector<audit::Event> events;
  const auto build = [&](const store::LogHead& head,
                         const store::ReadTile& tile) -> Result<store::LogAppend> {
    ASSIGN_OR_RETURN(events, InterruptedEvents(gone, *store));
    for (audit::Event& event : events) RETURN_IF_ERROR(Fill(event, clock_synced));
    if (events.empty()) return store::LogAppend();  // commits nothing
    return Build(head, tile, events);
  };
  ASSIGN_OR_RETURN(const store::LogHead head, store->Commit({}, build));
  if (events.empty()) return Ok();
  Committed(head);
  appended = true;
  return Ok();
}

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::Journal(Journal&&) noexcept = default;
Journal& Journal::operator=(Journal&&) noexcept = default;
Journal::~Journal() = default;

Result<Journal> Journal::Open(JournalOptions options) {
  if (options.clock == nullptr) options.clock = &SystemClock();
  if (options.random == nullptr) options.random = &SystemRandom();
  ASSIGN_OR_RETURN(auto store, store::SqliteStore::Open(options.state_dir, options.store));
  const auto ed25519 = audit::NoteKey::Ed25519(options.identity.origin, options.identity.ed25519);
  const auto p256 = audit::NoteKey::P256(options.identity.origin, options.identity.p256);
  const std::string journald_socket = options.journald_socket;
  std::unique_ptr<Impl> impl(new Impl{.options = std::move(options),
                                      .store = std::move(store),
                                      .ed25519_signer = envelope::Ed25519NoteSigner(ed25519),
                                      .p256_key = p256,
                                      .keys = {ed25519, p256},
                                      .signer_failure = "",
                                      .actor = std::nullopt,
                                      .boot_id = "",
                                      .journald = JournaldSender(journald_socket),
                                      .told = {},
                                      .tree = std::nullopt,
                                      .tree_checkpoint = "",
                                      .next_tree = std::nullopt,
                                      .appended = false,
                                      .ended_restores = false});
  return Journal(std::move(impl));
}

Result<AppendReceipt> Journal::Append(audit::Event event, const store::Change& change) {
  std::vector<audit::Event> events;
  events.push_back(std::move(event));
  return Append(std::move(events), change);
}

Result<AppendReceipt> Journal::Append(std::vector<audit::Event> events,
                                      const store::Change& change) {
  if (events.empty()) {
    return Error(ErrorCode::kInternal, Action::kReportBug, "a change without its log entry",
                 "report this");
  }
  // What does not depend on the log's head is done before the write lock is taken.
  const bool clock_synced = ClockSynchronized();  // asks the kernel under a lock of its own
  RETURN_IF_ERROR(impl_->EndRestores(clock_synced));
  for (audit::Event& event : events) RETURN_IF_ERROR(impl_->Fill(event, clock_synced));
  AppendReceipt receipt;
  const auto build = [&](const store::LogHead& head,
                         const store::ReadTile& tile) -> Result<store::LogAppend> {
    receipt.seq = head.size;
    return impl_->Build(head, tile, events);
  };
  ASSIGN_OR_RETURN(store::LogHead head, impl_->store->Commit(change, build));
  impl_->Committed(head);
  impl_->appended = true;
  receipt.size = head.size;
  receipt.checkpoint = std::move(head.checkpoint);
  receipt.p256_signed = head.p256_signed;
  return receipt;
}

Result<std::optional<AppendReceipt>> Journal::AppendAfter(const Bytes32& checkpoint_hash,
                                                          audit::Event event) {
  std::vector<audit::Event> events;
  events.push_back(std::move(event));
  RETURN_IF_ERROR(impl_->Fill(events.front(), ClockSynchronized()));
  std::optional<AppendReceipt> receipt;
  const auto build = [&](const store::LogHead& head,
                         const store::ReadTile& tile) -> Result<store::LogAppend> {
    if (audit::CheckpointHash(audit::NoteText(head.checkpoint)) != checkpoint_hash) {
      return store::LogAppend();  // commits nothing
    }
    receipt.emplace().seq = head.size;
    return impl_->Build(head, tile, events);
  };
  ASSIGN_OR_RETURN(store::LogHead head, impl_->store->Commit({}, build));
  if (!receipt) return receipt;
  impl_->Committed(head);
  impl_->appended = true;
  receipt->size = head.size;
  receipt->checkpoint = std::move(head.checkpoint);
  receipt->p256_signed = head.p256_signed;
  return receipt;
}

bool Journal::appended() const { return impl_->appended; }

Result<ImportResult> Journal::ImportEvents(std::string_view file) {
  const auto refused = [](std::string message) {
    return Error(ErrorCode::kLogDamaged, Action::kFixInput, std::move(message),
                 "give the file that the restore or drill wrote, unchanged");
  };
  // A power cut while the outcome was appended leaves a last line without its line feed: the
  // intent before it counts all the same.
  file = file.substr(0, file.rfind('\n') + 1);
  if (file.empty() || file.size() > kMaxImportBytes) {
    return refused("the file of events is empty, too long or cut off");
  }
  std::vector<store::NewEntry> entries;
  ImportCheck check;
  std::uint64_t number = 0;
  while (!file.empty()) {
    const std::size_t end = file.find('\n');
    const std::string_view line = file.substr(0, end);
    file.remove_prefix(end + 1);
    auto event = audit::ParseEvent(line);
    if (!event) return std::move(event).error().WithContext(fmt::format("line {}", number + 1));
    ++number;
    if (const std::string fault = check.Check(*event); !fault.empty()) {
      return refused(fmt::format("line {} is {}", number, fault));
    }
    store::NewEntry entry = MakeEntry(line, *event);
    entry.imported_id = event->id;
    entries.push_back(std::move(entry));
  }
  ImportResult result;
  const auto build = [&](const store::LogHead& head,
                         const store::ReadTile& tile) -> Result<store::LogAppend> {
    std::vector<store::NewEntry> fresh;
    for (store::NewEntry& entry : entries) {
      ASSIGN_OR_RETURN(const auto known, impl_->store->ImportedSeq(*entry.imported_id));
      if (known) {
        ++result.num_known;
      } else {
        fresh.push_back(std::move(entry));
      }
    }
    impl_->told.clear();
    if (fresh.empty()) return store::LogAppend();
    result.num_added = fresh.size();
    return impl_->Sign(head, tile, std::move(fresh));
  };
  ASSIGN_OR_RETURN(const store::LogHead head, impl_->store->Commit({}, build));
  if (result.num_added > 0) impl_->Committed(head);
  return result;
}

Result<std::string> Journal::LatestCheckpoint() {
  ASSIGN_OR_RETURN(store::LogHead head, impl_->store->Head());
  if (head.size == 0) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "the log is empty", "escrow a key first");
  }
  return std::move(head.checkpoint);
}

Result<JournalHealth> Journal::Health() {
  ASSIGN_OR_RETURN(const store::LogHead head, impl_->store->Head());
  JournalHealth health;
  health.size = head.size;
  health.p256_missing = !head.p256_signed;
  if (!health.p256_missing) return health;
  ASSIGN_OR_RETURN(const auto since, impl_->store->GetSetting(kMissingSetting));
  if (!since) return health;
  const std::size_t first = since->find(' ');
  const std::size_t second = since->find(' ', std::min(first, since->size()) + 1);
  if (first == std::string::npos || second == std::string::npos) return health;
  health.missing_since_size = std::strtoull(since->c_str(), nullptr, 10);
  health.missing_since_time = since->substr(first + 1, second - first - 1);
  health.missing_cause = since->substr(second + 1);
  return health;
}

Result<EventCounts> Journal::Counts() {
  ASSIGN_OR_RETURN(const store::LogHead head, impl_->store->Head());
  return impl_->CountsAt(head);
}

Result<std::string> Journal::Prove(std::uint64_t seq) {
  std::string text;
  const auto prove = [&]() -> Status {
    ASSIGN_OR_RETURN(store::LogHead head, impl_->store->Head());
    ASSIGN_OR_RETURN(store::LogEntry entry, impl_->store->Entry(seq));
    audit::TlogProof proof;
    const audit::TileReader read = [&](unsigned level, std::uint64_t index) {
      return impl_->store->Tile(level, index);
    };
    ASSIGN_OR_RETURN(proof.hashes, audit::InclusionProof(seq, head.size, read));
    proof.extra = std::move(entry.bytes);
    proof.index = seq;
    proof.checkpoint = std::move(head.checkpoint);
    // A receipt that does not verify is not given out.
    RETURN_IF_ERROR(
        audit::VerifyTlogProof(proof, proof.extra, impl_->options.identity.origin, impl_->keys));
    text = audit::FormatTlogProof(proof);
    return Ok();
  };
  RETURN_IF_ERROR(impl_->store->ReadTogether(prove));
  return text;
}

Status Journal::Events(const EventFilter& filter,
                       const std::function<bool(const LoggedEvent&)>& visit) {
  const bool needs_event = !filter.types.empty() || filter.since || filter.until;
  return impl_->store->Entries(filter.first, filter.key_name, [&](const store::LogEntry& entry) {
    LoggedEvent logged;
    logged.seq = entry.seq;
    logged.line = std::string(AsText(entry.bytes));
    logged.leaf_hash = entry.leaf_hash;
    auto event = audit::ParseEvent(logged.line);
    if (event) logged.event = std::move(*event);
    if (needs_event) {
      if (!logged.event) return true;
      const audit::Event& e = *logged.event;
      const bool type_fits =
          filter.types.empty() ||
          std::find(filter.types.begin(), filter.types.end(), e.type) != filter.types.end();
      if (!type_fits || (filter.since && e.time < *filter.since) ||
          (filter.until && e.time > *filter.until)) {
        return true;
      }
    }
    return visit(logged);
  });
}

store::EscrowStore& Journal::store() { return *impl_->store; }
const std::vector<audit::NoteKey>& Journal::Keys() const { return impl_->keys; }
const AgentIdentity& Journal::identity() const { return impl_->options.identity; }

}  // namespace keyescrow::agent
