// EnvelopeCheck: one kept envelope against its row, the entry that escrowed it, and whose signature
// counts for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit/event_facts.h"
#include "agent/audit/log_faults.h"
#include "agent/store/store_reader.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/keyed_sum.h"
#include "agent/usecases/policy_timeline.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// EscrowsEnvelope: the entry is of an envelope that the store has, or had.
bool EscrowsEnvelope(const audit::EventFacts& facts);

// ExpectedEnvelopes: for each entry of the log, which envelope it escrows, in 32 bytes: the
// envelope hash, its last eight bytes covered by a keyed hash of the name, version, revision and
// id. Filled by the threads that read the entries, each its own; then asked by those that read the
// envelopes.
class ExpectedEnvelopes {
 public:
  // Size must be given before anything else; it allocates 32 bytes an entry.
  ExpectedEnvelopes(std::uint64_t num_entries, const SipKey& key)
      : key_(key), slots_(num_entries), seen_((num_entries + 63) / 64) {}

  void Expect(std::uint64_t seq, const audit::EventFacts& facts);

  enum class Match : std::uint8_t { kGood, kOther, kTwice };
  // Take says whether the row is what entry `row.log_seq` escrows, once. Thread-safe.
  Match Take(const store::EnvelopeRow& row);
  // Missing calls `visit` for each entry whose envelope was not taken.
  void Missing(const std::function<void(std::uint64_t)>& visit) const;

  std::uint64_t size() const { return slots_.size(); }

 private:
  Bytes32 Slot(const Bytes32& sha256, std::string_view key_name, std::uint64_t version,
               std::uint64_t revision, std::string_view envelope_id) const;

  SipKey key_;
  std::vector<Bytes32> slots_;  // zeroes: the entry escrows nothing
  std::vector<std::atomic<std::uint64_t>> seen_;
};

// TrustTimeline: whether an agent was trusted for a key at an entry, as the log tells and within
// the limits of the store's rows.
class TrustTimeline {
 public:
  // `own` are the agents that count whatever the log says: the log's own, and whom the auditor
  // named.
  TrustTimeline(std::vector<std::string> own,
                std::map<std::string, std::vector<TrustChange>> changes,
                std::vector<store::TrustRecord> rows);
  bool IsOwn(const std::string& thumbprint) const;
  bool Allows(const envelope::Header& header, std::uint64_t seq) const;

 private:
  std::vector<std::string> own_;
  std::map<std::string, std::vector<TrustChange>> changes_;
  std::map<std::string, store::TrustRecord> rows_;
};

// PayloadHash returns the envelope hash of a file that is written as Seal writes it, without
// reading the rest; nothing for any other form.
std::optional<Bytes32> PayloadHash(ByteView file);

struct EnvelopeTally {
  std::uint64_t num_envelopes = 0;
  std::uint64_t num_destroyed = 0;  // of these, those that are gone as the log says
  std::uint64_t num_signatures = 0;
  std::uint64_t num_paths = 0;
  std::uint64_t num_tpm_objects = 0;  // whose public area was recomputed
  std::uint64_t num_held_to_policy = 0;
  audit::LogFindings findings;
};

class EnvelopeChecker {
 public:
  // With `quick`, an envelope is hashed and compared with its entry, and not read. All outlive it.
  EnvelopeChecker(store::StoreReader& reader, ExpectedEnvelopes& expected,
                  const TrustTimeline& trust, const PolicyTimeline& policies,
                  const VersionLife& life, bool quick)
      : reader_(reader),
        expected_(expected),
        trust_(trust),
        policies_(policies),
        life_(life),
        quick_(quick) {}
  Status Check(const store::EnvelopeRow& row);
  EnvelopeTally& tally() { return tally_; }

 private:
  Status CheckContent(const store::EnvelopeRow& row, const Bytes32& kept_hash);
  Status CheckPrevious(const store::EnvelopeRow& row, const envelope::Header& header);
  Status CheckPolicy(const store::EnvelopeRow& row, const envelope::Header& header);
  // CheckGone tells whether the envelope is to be gone, having looked that it is.
  bool CheckGone(const store::EnvelopeRow& row);
  void Add(audit::LogFault fault, const store::EnvelopeRow& row, std::string_view what);

  store::StoreReader& reader_;
  ExpectedEnvelopes& expected_;
  const TrustTimeline& trust_;
  const PolicyTimeline& policies_;
  const VersionLife& life_;
  bool quick_;
  EnvelopeTally tally_;
};

}  // namespace keyescrow::agent
