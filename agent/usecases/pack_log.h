// PackLog: the log of an evidence pack, verified together with what the pack states beside it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/audit/verify.h"
#include "agent/report/ustar.h"
#include "agent/usecases/drawn_sample.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/pack_history.h"
#include "agent/usecases/pack_recovery_keys.h"
#include "agent/usecases/report_history.h"

namespace keyescrow::agent {

struct PackLogOptions {
  std::string origin;
  std::vector<audit::NoteKey> keys;
  std::vector<envelope::AnchorKey> anchor_keys;
  std::vector<std::string> agents;  // thumbprints that count whatever the log says
  std::uint64_t size = 0;           // as it was signed
  std::optional<audit::Checkpoint> since;
  DrawnSample* sample = nullptr;  // told of each proof that holds; or null
};

// PackLog keeps the summaries, the checkpoints' roots and the proofs of paths; entries go by.
class PackLog {
 public:
  // Pack and findings outlive it.
  PackLog(const report::TarReader& pack, PackLogOptions options, audit::LogFindings& findings)
      : pack_(pack),
        options_(std::move(options)),
        findings_(findings),
        order_(options_.anchor_keys) {}

  // Verify reads the whole of it. Errors: kLogDamaged where it cannot go on.
  Status Verify();

  const Summaries& summaries() const { return summaries_; }
  const VersionLife& life() const { return order_.life(); }
  const std::string& checkpoint() const { return checkpoint_; }  // the newest, as it was signed
  const Bytes32& root() const { return report_.root; }           // of the entries
  // The policies that were set, in the log's order.
  const std::vector<audit::EventPolicy>& policies() const { return policies_; }
  const std::vector<PolicySet>& policy_sets() const { return order_.policies(); }
  const ReportHistory& history() const { return history_; }
  const RecoveryKeyList& recovery_keys() const { return recovery_keys_; }
  std::string DrillLines() const { return drills_.Lines(); }
  const std::string& anchor_lines() const { return anchor_lines_; }

  // SayChecked adds what was checked, and what was not.
  void SayChecked(std::vector<std::string>& checked, std::vector<std::string>& not_checked) const;

 private:
  Status ReadSummaries();
  Status ReadEntries(audit::LogVerifier& verifier);
  Result<Bytes> Tile(unsigned level, std::uint64_t index) const;
  Status CompareCheckpoint();
  void ReadEntry(std::uint64_t seq, std::string_view line, const audit::EventFacts& facts);
  void MatchSummary(std::uint64_t seq, std::string_view line, const audit::EventFacts& facts);
  // CheckDestroyed: what was destroyed, and nothing else, has no summary.
  void CheckDestroyed();
  Status CheckHistory();
  // CheckDrill returns whether the proof does not hold.
  bool CheckDrill(std::uint64_t seq, const audit::Event& event);

  const report::TarReader& pack_;
  PackLogOptions options_;
  audit::LogFindings& findings_;
  EventOrder order_;
  NoticedSegment noticed_;
  audit::LogReport report_;
  std::string checkpoint_;
  std::string last_note_;                   // of checkpoints/
  std::map<std::uint64_t, Bytes32> roots_;  // of the checkpoints, by size
  Summaries summaries_;
  std::map<std::uint64_t, KeyVersion> unmatched_;  // escrows without a summary
  std::uint64_t num_matched_ = 0;
  std::set<std::uint64_t> imported_;  // escrows of envelopes that came by import
  StatusClaims claims_;
  std::size_t num_trusted_ = 0;
  std::size_t num_tokens_ = 0;
  RecoveryKeyList recovery_keys_;
  ReportHistory history_;
  PackDrills drills_;
  std::uint64_t num_drills_ = 0;
  std::uint64_t num_unknown_drills_ = 0;
  std::string anchor_lines_;
  std::vector<audit::EventPolicy> policies_;
};

}  // namespace keyescrow::agent
