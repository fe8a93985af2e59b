// EventOrder: what the log's entries say one after the other: releases and their ends, the clock,
// who was trusted when, which tokens were registered, which events were imported.
//
// A segment's entries are looked at on any thread (Notice); what matters is then taken in order.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/audit/anchor.h"
#include "agent/audit/event_facts.h"
#include "agent/audit/log_faults.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/foreign_mark.h"
#include "agent/usecases/version_life.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// PolicySet: one `policy set`.
struct PolicySet {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  std::uint64_t serial = 0;
  Bytes32 sha256{};
  std::string signers = {};  // PolicySigners of those who signed it; "" in entries of before
};

// TellsOfThePath: as path_proof.h's, of an error code's name, which entries have.
bool TellsOfThePath(std::string_view error_name);

// FailsAPath: the entry tells of a path of an envelope that it is broken.
bool FailsAPath(const audit::EventFacts& facts);

// PathFailure: an entry that tells of a path that it is broken.
struct PathFailure {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  std::string error;
  std::uint32_t revision = 0;
  Bytes32 envelope_sha256{};
};
struct PathName {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string path_id;
  auto operator<=>(const PathName&) const = default;
};

// NoticedEvent: an entry that EventOrder needs, copied out of its row.
struct NoticedEvent {
  std::uint64_t seq = 0;
  audit::EventType type{};
  audit::Outcome outcome{};
  std::int64_t time = 0;
  Bytes16 id{};
  bool stateless = false;
  std::uint32_t uid = 0;
  std::int32_t pid = 0;
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string name;  // a factor's
  bool is_recovery_key = false;
  std::optional<Bytes32> key_sha256;
  std::string reason;
  std::optional<PolicySet> policy;             // of a policy that was set
  std::shared_ptr<const audit::Event> anchor;  // the whole event, where it is about an anchor
  bool has_envelope = false;
  std::string path_id = {};                 // where it has `failure`
  std::optional<PathFailure> failure = {};  // of a path, or of a recovery key alone
  bool truncated = false;
};

struct NoticedSegment {
  std::vector<NoticedEvent> events;
  bool has_times = false;
  std::int64_t first_time = 0;
  std::int64_t last_time = 0;
  std::uint64_t first_time_seq = 0;
  audit::LogFindings findings;  // of the clock

  void Notice(std::uint64_t seq, const audit::EventFacts& facts);

 private:
  void CompareTime(std::uint64_t seq, std::int64_t time);
};

// TrustChange: one `trust add` or `trust remove`. `limits` is TrustLimits of the row that it made;
// logs of before it was written have none.
struct TrustChange {
  std::uint64_t seq = 0;
  bool added = false;
  std::string limits;
};

// FailedRecoveryKey: the last drill of a recovery key did not open it, for what lies in the key.
struct FailedRecoveryKey {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  std::string error;
  std::optional<Bytes32> sha256;  // of the record; none where the entry was too long for it
};

struct TokenChange {
  std::uint64_t seq = 0;
  bool added = false;
  std::optional<Bytes32> key_sha256;
  std::string evidence = {};  // TokenEvidence of its row; "" in entries of before
};

// GateOverride: one gate.overridden.
struct GateOverride {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  std::uint32_t key_version = 0;
  std::string reason = {};  // with the rules before it, as far as the log has it
  bool truncated = false;
};

class EventOrder {
 public:
  // `anchor_keys` are known to be the log's. Certificates by others, such as a counter's that was
  // made anew since, are counted and not checked.
  explicit EventOrder(std::vector<envelope::AnchorKey> anchor_keys = {})
      : anchor_keys_(std::move(anchor_keys)), anchors_(anchor_keys_), other_anchors_({}) {}
  void Add(NoticedSegment segment, audit::LogFindings& findings);
  // Finish reports the releases that are still open.
  void Finish(audit::LogFindings& findings);

  const std::map<std::string, std::vector<TrustChange>>& trust() const { return trust_; }
  const std::map<std::string, TokenChange>& tokens() const { return tokens_; }
  // recovery_keys: key_sha256 is that of the record.
  const std::map<std::string, TokenChange>& recovery_keys() const { return recovery_keys_; }
  const std::vector<PolicySet>& policies() const { return policies_; }  // in the log's order
  // gate_overrides: by key; the last one.
  const std::map<std::string, GateOverride>& gate_overrides() const { return gate_overrides_; }
  // path_failures: the last one of each path. What has opened since is not looked at.
  const std::map<PathName, PathFailure>& path_failures() const { return path_failures_; }
  // failed_recovery_keys: by name.
  const std::map<std::string, FailedRecoveryKey>& failed_recovery_keys() const {
    return failed_recovery_keys_;
  }
  // foreign_escrows: the last change of each, by its name (ForeignMark).
  const std::map<std::string, ForeignChange>& foreign_escrows() const { return foreign_escrows_; }
  // unmarked_foreign: reasons of entries of before a mark was written.
  const std::set<std::string>& unmarked_foreign() const { return unmarked_foreign_; }
  // tpm_simulator: what `init` said of the TPM; none in logs of before.
  std::optional<bool> tpm_simulator() const { return tpm_simulator_; }
  const std::map<Bytes16, std::uint64_t>& imported() const { return imported_; }
  const VersionLife& life() const { return life_; }
  std::uint64_t num_releases() const { return num_releases_; }
  // num_interrupted: of these, how many are logged to have ended without an outcome.
  std::uint64_t num_interrupted() const { return num_interrupted_; }
  std::uint64_t num_anchors() const { return anchors_.num_checked(); }
  std::uint64_t num_unchecked_anchors() const { return other_anchors_.num_unchecked(); }

 private:
  struct Request {
    std::uint64_t seq = 0;
    std::string text;
  };
  void AddOne(const NoticedEvent& event, audit::LogFindings& findings);
  void AddInterrupted(const NoticedEvent& event);
  void AddForeign(const NoticedEvent& event);
  void AddRecoveryKeyDrill(const NoticedEvent& event);

  std::vector<envelope::AnchorKey> anchor_keys_;
  audit::AnchorTrail anchors_;
  audit::AnchorTrail other_anchors_;
  std::map<std::string, std::vector<TrustChange>> trust_;  // by thumbprint
  std::map<std::string, TokenChange> tokens_;              // by name; the last change
  std::map<std::string, TokenChange> recovery_keys_;       // the same
  std::vector<PolicySet> policies_;
  std::map<std::string, GateOverride> gate_overrides_;
  std::map<PathName, PathFailure> path_failures_;
  std::map<std::string, FailedRecoveryKey> failed_recovery_keys_;
  std::map<std::string, ForeignChange> foreign_escrows_;
  std::set<std::string> unmarked_foreign_;
  std::optional<bool> tpm_simulator_;
  std::map<Bytes16, std::uint64_t> imported_;
  VersionLife life_;
  std::map<std::string, Request> open_;
  std::set<std::string> interrupted_;  // who was taken to have ended, and may still tell
  std::optional<std::int64_t> last_time_;
  std::uint64_t num_releases_ = 0;
  std::uint64_t num_interrupted_ = 0;
};

// What the factor of an entry is called that names a recovery key.
inline constexpr std::string_view kRecoveryKeyKind = "recovery-key";

// TrustReason is the reason of the entry that tells of a trusted agent: its thumbprint, and its
// limits, which ParseTrustReason finds again whatever their length.
std::string TrustReason(const store::TrustRecord& record);
std::string TrustRemovedReason(const std::string& thumbprint);
// TrustLimits is the b64u SHA-256 of a row's host and key patterns.
std::string TrustLimits(const std::vector<std::string>& hosts,
                        const std::vector<std::string>& keys);

// PolicyReason is the reason of the entry that sets a policy. `signers` is policy::FormatSigners of
// those under whom it was accepted, and PolicySigners its b64u SHA-256.
std::string PolicyReason(std::string_view mode, std::string_view signers);
std::string PolicySigners(std::string_view signers);

// EvidenceReason is the reason of the entry that registers a token, and TokenEvidence the b64u
// SHA-256 of what its row says of it.
std::string EvidenceReason(std::string_view evidence);
std::string TokenEvidence(std::string_view evidence);

// OverrideReason is the reason of the entry that tells of an override of the gate: the rules that
// the key broke, which have no colon, and what the person gave. IsOverrideFor tells whether `gate`
// may be of an override with `reason`: the log keeps the beginning of a long one.
std::string OverrideReason(std::string_view rules, std::string_view reason);
bool IsOverrideFor(const GateOverride& gate, std::string_view reason);

// StartReason is the reason of a log's first entry.
std::string StartReason(std::string_view version, bool tpm_simulator);

}  // namespace keyescrow::agent
