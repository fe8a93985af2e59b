// What an evidence pack states beside the log: envelopes' facts, proofs of paths, anchors. Whoever
// writes a pack and whoever verifies one use the same code, so that both mean the same by it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/audit/event.h"
#include "agent/usecases/version_life.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// EnvelopeSummary: what a pack tells of one envelope; a member `summaries/` has one a line.
struct EnvelopeSummary {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::string envelope_id;  // b64u
  Bytes32 sha256{};         // the envelope hash
  std::uint64_t log_seq = 0;
  std::string previous;  // "" or b64u of the envelope hash of the revision before it
  std::string host;
  std::string agent;  // thumbprint
  std::int64_t created = 0;
  std::vector<std::pair<std::string, Bytes32>> drill_keys;  // by path
  std::vector<audit::EventPath> paths;
  // By path: the recovery key that it goes to; both empty where it goes to none.
  struct RecoveryKey {
    std::string name;
    std::string thumbprint;  // RFC 7638, of its public half
  };
  std::vector<RecoveryKey> recovery_keys;
};
// Errors: kLogDamaged where the line is no summary.
Result<EnvelopeSummary> ParseSummary(std::string_view line);

// SameFactors: what an entry tells of factors is what is stated of them, as far as it has them: of
// a long one details or factors were left out.
bool SameFactors(const std::vector<audit::EventFactor>& told,
                 const std::vector<audit::EventFactor>& stated);
// PathsOfEntry: the summary's paths are those of the entry that escrowed it, as far as that has
// them: of a long one details, factors or paths were left out.
bool PathsOfEntry(const EnvelopeSummary& summary, const std::vector<audit::EventPath>& entry);

class PackFields;
// ReadFactors reads `factors` of a path, or of a recovery key: 1 to 4.
std::vector<audit::EventFactor> ReadFactors(PackFields& object);

// Summaries: by the entry that escrowed the envelope.
using Summaries = std::map<std::uint64_t, EnvelopeSummary>;
// NewestOfVersions returns, for each version of each key, the entry that escrowed its newest
// revision.
std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> NewestOfVersions(
    const Summaries& summaries);
// ProofMember: "proofs/<entry, 12 digits>.receipt".
std::string ProofMember(std::uint64_t log_seq);

// PackDrills keeps the newest proof of each path that holds.
class PackDrills {
 public:
  // The summary must outlive this.
  void AddEnvelope(const EnvelopeSummary& summary) { envelopes_[summary.sha256] = &summary; }

  enum class Verdict : std::uint8_t { kHolds, kFails, kUnknownEnvelope };
  struct Checked {
    Verdict verdict{};
    std::string fault;  // of kFails
  };
  // Add checks the proof of an entry that has one (audit/FORMAT.md, "Drill proofs"), but for the
  // root of a log that is not empty: that is for whoever has it.
  Checked Add(std::uint64_t seq, const audit::Event& event);

  // Lines returns `drills.jsonl`: the newest of each path, in the order of their entries.
  std::string Lines() const;

 private:
  Status Check(std::uint64_t seq, const audit::Event& event, const EnvelopeSummary& summary,
               std::string& line) const;

  std::map<Bytes32, const EnvelopeSummary*> envelopes_;
  std::map<std::pair<Bytes32, std::string>, std::pair<std::uint64_t, std::string>> newest_;
};

// AnchorLine returns the line of `anchors.jsonl` of an entry; "" where it is no certificate of the
// log's counter.
std::string AnchorLine(std::uint64_t seq, std::string_view entry, const audit::Event& event);

// PolicyFacts: `policy/policy.json`.
struct PolicyFacts {
  std::string name;
  std::uint64_t serial = 0;  // 0: the built-in one
  Bytes32 sha256{};          // of policy/policy.toml
  std::int64_t set_time = 0;
};
std::string FormatPolicyFacts(const PolicyFacts& facts);
// Errors: kLogDamaged.
Result<PolicyFacts> ParsePolicyFacts(std::string_view text);

// PackStatus: what inventory.json and status.json state, where they agree with the summaries.
struct PackStatus {
  std::size_t num_escrowed = 0;
  std::size_t num_declared = 0;
  std::size_t num_critical = 0;           // findings of status.json
  std::vector<std::string> not_escrowed;  // declared
};
// ComparePackStatus holds both against the newest checkpoint and the newest summary of each key's
// version in use. Errors: kLogDamaged.
Result<PackStatus> ComparePackStatus(std::string_view inventory, std::string_view status,
                                     std::string_view checkpoint, const Summaries& summaries,
                                     const VersionLife& life);

// SplitLines returns the lines without their LF. Errors: kLogDamaged where the last one has none.
Result<std::vector<std::string_view>> SplitLines(std::string_view text);

}  // namespace keyescrow::agent
