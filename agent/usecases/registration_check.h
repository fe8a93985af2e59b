// RegistrationChecker: what the store keeps beside its history, held against the log: indexes,
// tokens, trusted agents, imported events, and which paths were proven.
//
// What no entry tells (a token's URI and module, settings, destinations) is not checked, and said.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/log_faults.h"
#include "agent/store/store_reader.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/keyed_sum.h"

namespace keyescrow::agent {

// What the reason of an entry begins with that escrowed an envelope which `import` took.
inline constexpr std::string_view kImportedReason = "imported; ";
// How far the time of a proof's entry may be from the time that is kept of it: it is taken a moment
// later (audit/FORMAT.md, "Verification of a log").
inline constexpr std::int64_t kProofToleranceSeconds = 60;

// TrustChanges: EventOrder::trust().
using TrustChanges = std::map<std::string, std::vector<TrustChange>>;
// CompareTrust holds the trusted agents, as somebody lists them, against what the log tells. A row
// without a key is one of a pack.
void CompareTrust(const std::vector<store::TrustRecord>& rows, const TrustChanges& logged,
                  audit::LogFindings& findings);

// TokenChanges: EventOrder::tokens(). CompareTokens does the same for registered tokens.
using TokenChanges = std::map<std::string, TokenChange>;
void CompareTokens(const std::vector<store::TokenRecord>& rows, const TokenChanges& logged,
                   audit::LogFindings& findings);

// CompareRecoveryKeyList holds registered recovery keys against EventOrder::recovery_keys();
// CompareRecoveryKeys also each row against its own record.
void CompareRecoveryKeyList(const std::vector<store::RecoveryKeyRecord>& rows,
                            const TokenChanges& logged, audit::LogFindings& findings);
void CompareRecoveryKeys(const std::vector<store::RecoveryKeyRecord>& rows,
                         const TokenChanges& logged, audit::LogFindings& findings);

// CompareOverrides does the same for the newest override of the gate for each key.
void CompareOverrides(const std::vector<store::GateOverrideRecord>& rows,
                      const std::map<std::string, GateOverride>& logged,
                      audit::LogFindings& findings);

// CompareForeign does it for foreign escrows, against `order`'s foreign_escrows() and
// unmarked_foreign(); CompareRecoveryKeyFailures for the failures that `settings` keep of `rows`.
void CompareForeign(const std::vector<store::ForeignEscrowRecord>& rows, const EventOrder& order,
                    audit::LogFindings& findings);
void CompareRecoveryKeyFailures(const std::vector<store::RecoveryKeyRecord>& rows,
                                const std::vector<store::Setting>& settings,
                                const EventOrder& order, audit::LogFindings& findings);

// NamesPath: one of the entry's paths.
bool NamesPath(const audit::EventFacts& facts, std::string_view path_id);

// Schemas of before have no index of entries by key.
inline constexpr int kSchemaWithEntryIndex = 2;

struct RegistrationTally {
  std::uint64_t num_keys = 0;
  std::uint64_t num_tokens = 0;
  std::uint64_t num_recovery_keys = 0;
  std::uint64_t num_trusted = 0;
  std::uint64_t num_imported = 0;
  std::uint64_t num_rotations = 0;
  std::uint64_t num_proofs = 0;
  std::uint64_t num_signed_proofs = 0;  // of these, signed with the path's own key
  std::vector<std::string> settings;    // names
  audit::LogFindings findings;
};

// The checks may run at the same time, each with a reader of its own.
class RegistrationChecker {
 public:
  // `entry_keys` and `envelope_keys` are the sums over the tables' rows; `bad_drills` are the
  // entries, in order, whose proofs do not hold. All outlive it.
  RegistrationChecker(const EventOrder& order, const KeyedSum& entry_keys,
                      const KeyedSum& envelope_keys, const std::vector<std::uint64_t>& bad_drills,
                      const SipKey& key, bool quick)
      : order_(order),
        entry_keys_(entry_keys),
        envelope_keys_(envelope_keys),
        bad_drills_(bad_drills),
        key_(key),
        quick_(quick) {}

  // CheckEnvelopeIndex compares the index by key with the rows, and looks for gaps in it.
  Status CheckEnvelopeIndex(store::StoreReader& reader);
  Status CheckEntryIndex(store::StoreReader& reader);
  // CheckProofs looks for the entry behind each proven path: the `part`th of `num_parts` shares of
  // them. What the entry says of the path's own key, DrillChecker verifies. Nothing with `quick`.
  Status CheckProofs(store::StoreReader& reader, unsigned part, unsigned num_parts);
  Status CheckRows(store::StoreReader& reader);
  RegistrationTally Take() { return std::move(tally_); }

 private:
  void Add(audit::LogFault fault, std::uint64_t position, std::string text);
  Status CheckTokens(store::StoreReader& reader);
  Status CheckRecoveryKeys(store::StoreReader& reader);
  Status CheckTrust(store::StoreReader& reader);
  Status CheckImported(store::StoreReader& reader);
  Status CheckOverrides(store::StoreReader& reader);
  Status CheckLife(store::StoreReader& reader);
  Status CheckFailures(store::StoreReader& reader);
  Status CheckRecoveryKeyFailures(store::StoreReader& reader);
  Status CheckForeign(store::StoreReader& reader);

  const EventOrder& order_;
  const KeyedSum& entry_keys_;
  const KeyedSum& envelope_keys_;
  const std::vector<std::uint64_t>& bad_drills_;
  SipKey key_;
  bool quick_;
  std::mutex mutex_;
  RegistrationTally tally_;
};

}  // namespace keyescrow::agent
