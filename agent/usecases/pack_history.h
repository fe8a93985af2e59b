// What a pack's statements must have in common with its log, entry by entry, as a verification of
// the state has it: revisions without gaps, whose agent counted, paths that were proven, releases.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "agent/audit/event_facts.h"
#include "agent/audit/log_faults.h"
#include "agent/usecases/envelope_check.h"
#include "agent/usecases/pack_facts.h"

namespace keyescrow::agent {

// CheckSummaries finds what no log of whole envelopes has: a revision that does not continue the
// one before it, a gap (but before an envelope that came by `import`), and an agent that did not
// count at the entry, for that host and key. `imported`: the entries of such imports. What was
// destroyed, by `life`, has no summary, and leaves no gap.
void CheckSummaries(const Summaries& summaries, const std::set<std::uint64_t>& imported,
                    const TrustTimeline& trust, const VersionLife& life,
                    audit::LogFindings& findings);

// StatusClaims: what status.json says that entries must tell: when a path was proven last, which
// paths are broken, and each release with its end.
class StatusClaims {
 public:
  // Errors: kLogDamaged where it is not of the form.
  static Result<StatusClaims> Parse(std::string_view status);

  // Notice compares the next entry. `proof_fails`: it has a drill, which does not hold.
  void Notice(std::uint64_t seq, const audit::EventFacts& facts, bool proof_fails,
              audit::LogFindings& findings);
  // Finish finds what no entry told. `order` has read the same entries.
  void Finish(const EventOrder& order, audit::LogFindings& findings) const;

  std::size_t num_proofs() const { return proofs_.size(); }
  std::uint64_t num_releases() const { return num_releases_; }

 private:
  struct Proof {
    std::uint32_t version = 0;
    std::optional<std::uint32_t> revision;  // of a path that is proven, and not stale or broken
    std::int64_t time = 0;
    bool told = false;
  };
  // Path: whether it is broken, as it is stated, and as the entries of its version tell it.
  struct Path {
    bool is_broken = false;
    std::string failure;
    std::string recovery_key;  // that it goes to
    std::optional<std::int64_t> covered_since;
    bool failure_told = false;  // by any entry of that version
    std::optional<PathFailure> failed;
    bool opened = false;  // once
    std::uint64_t opened_seq = 0;
    std::int64_t opened_time = 0;  // last
  };
  struct Key {
    std::uint32_t version = 0;
    bool is_own = false;                // this host's agent made the envelope
    std::optional<std::uint64_t> made;  // the entry of its first revision
    Bytes32 newest{};                   // the hash of its last revision
    std::map<std::string, Path> paths = {};
  };
  void NoticeCondition(std::uint64_t seq, const audit::EventFacts& facts);
  void CompareCondition(const std::string& key_name, const Key& key, const std::string& path_id,
                        const EventOrder& order, audit::LogFindings& findings) const;

  // Of a release: key, version, and the end or "requested".
  using Step = std::tuple<std::string, std::uint32_t, std::string>;

  std::map<std::pair<std::string, std::string>, Proof> proofs_;  // by key and path
  std::map<std::string, Key, std::less<>> keys_;
  std::map<std::uint64_t, Step> steps_;  // by entry
  std::uint64_t num_releases_ = 0;
};

}  // namespace keyescrow::agent
