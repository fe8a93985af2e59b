// Events: the log's entries, each one line of canonical JSON of at most 2048 bytes. FORMAT.md,
// "Entries", is normative. No value derived from a secret is ever in one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

inline constexpr std::size_t kMaxEventBytes = 2048;
inline constexpr std::size_t kMaxReasonBytes = 512;

enum class EventType : std::uint8_t {
#define KEYESCROW_EVENT(enumerator, name) enumerator,
#include "agent/audit/event_types.def"
#undef KEYESCROW_EVENT
};
std::string_view EventTypeName(EventType type);  // e.g. "restore.requested"
std::optional<EventType> EventTypeFromName(std::string_view name);

// Outcome of what the event tells: an intent (restore.requested, .approved) is pending.
enum class Outcome : std::uint8_t { kPending, kSuccess, kFailure };
std::string_view OutcomeName(Outcome outcome);  // "pending", "success", "failure"
std::optional<Outcome> OutcomeFromName(std::string_view name);

struct Actor {
  std::uint32_t uid = 0;
  std::optional<std::uint32_t> login_uid;  // who logged in before sudo or su
  std::string name;                        // of uid; "" where unknown
  std::int32_t pid = 0;
  std::string exe;
  bool operator==(const Actor&) const = default;
};

// EventFactor describes a factor without its secrets: no salt, no blob.
struct EventFactor {
  std::string kind;                   // "password", "pkcs11-rsa", "tpm2", …
  std::string id;                     // token's or host's name, or ""
  std::optional<Bytes32> key_sha256;  // of the public key
  std::string kdf;                    // e.g. "argon2id t=4 m=262144 p=4", or ""
  bool operator==(const EventFactor&) const = default;
};
struct EventPath {
  std::string id;
  std::vector<EventFactor> factors;
  bool operator==(const EventPath&) const = default;
};

struct EventKey {
  std::string name;
  std::uint32_t version = 0;  // 0: not of one version
  bool operator==(const EventKey&) const = default;
};
struct EventEnvelope {
  std::string id;  // envelope_id, b64u
  std::uint32_t revision = 0;
  Bytes32 sha256{};  // the envelope hash
  bool operator==(const EventEnvelope&) const = default;
};
struct EventPolicy {
  std::string id;
  std::uint64_t serial = 0;
  Bytes32 sha256{};
  bool operator==(const EventPolicy&) const = default;
};

// EventAnchor: the log's counter in the TPM. An intent (pending) names the value that is to be
// reached; a success carries what the TPM certified over prev_checkpoint. CheckAnchor (anchor.h).
struct EventAnchor {
  std::uint64_t counter = 0;
  std::uint32_t index = 0;             // NV index
  Bytes key;                           // the attestation key's TPM2B_PUBLIC
  Bytes attest;                        // TPMS_ATTEST; empty in an intent and in a mismatch
  std::optional<Bytes64> signature{};  // exactly where there is an attest
  bool operator==(const EventAnchor&) const = default;
};

// EventDrill: the rest of the signed statement that the path was opened (drill_proof.h); the
// entry's source is the checkpoint's origin.
struct EventDrill {
  std::uint64_t size = 0;  // of the log's newest checkpoint when the path was opened
  Bytes32 root{};
  std::int64_t time = 0;             // Unix seconds
  std::optional<Bytes32> challenge;  // an auditor's
  Bytes64 signature{};
  bool operator==(const EventDrill&) const = default;
};

// Event: what callers set is type, outcome, error, approvers, key, envelope, policy, paths, drill,
// anchor, reason and ticket. The rest is filled by whoever writes it: the journal, or a restore
// without state.
struct Event {
  Bytes16 id{};
  std::string source;            // the log's origin, or "stateless"
  std::uint64_t source_seq = 0;  // the index in the log, or the line in a stateless file
  std::int64_t time = 0;         // Unix seconds
  std::string boot_id;
  bool clock_synced = false;
  EventType type{};
  Outcome outcome = Outcome::kSuccess;
  std::string error;  // an error code's name, or ""
  std::optional<Actor> actor;
  std::vector<std::string> approvers;
  std::string host;
  std::optional<EventKey> key;
  std::optional<EventEnvelope> envelope;
  std::optional<EventPolicy> policy;
  std::vector<EventPath> paths;
  std::optional<EventDrill> drill;  // with an envelope and exactly one path
  std::optional<EventAnchor> anchor;
  std::string reason;                      // at most 512 bytes of UTF-8 are kept
  std::string ticket;                      // at most 128
  std::optional<Bytes32> prev_checkpoint;  // none in the first entry and in stateless events
  bool truncated = false;                  // details were left out to keep to 2048 bytes
  bool operator==(const Event&) const = default;
};

inline constexpr std::string_view kStatelessSource = "stateless";

// SerializeEvent returns the line, without a newline. Long texts are cut at a character, invalid
// UTF-8 becomes U+FFFD; if the line would pass 2048 bytes, first the factors' details, then the
// factors, then the paths, then all but 128 bytes of the reason, then reason, ticket and approvers
// are left out and `truncated` is set. A drill's statement, and its path's id, are never left out.
// Errors: kInternal where even that is too long, or a drill is not of one path of an envelope.
Result<std::string> SerializeEvent(const Event& event);

// ParseEvent takes exactly what SerializeEvent writes, byte for byte. Errors: kLogDamaged;
// kUnsupportedHere for a newer `v`.
Result<Event> ParseEvent(std::string_view line);

}  // namespace keyescrow::agent::audit
