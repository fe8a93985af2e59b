#include "agent/usecases/anchoring.h"

#include <fmt/core.h>

#include <utility>

#include "agent/audit/checkpoint.h"
#include "agent/audit/note.h"
#include "envelope/base/pause_point.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kAnchorPeriodSeconds = 3600;
constexpr std::int64_t kReleaseGraceSeconds = 86400;
constexpr int kMaxCertificates = 5;

Error Mismatch(const std::string& what, std::string_view command = "audit anchor") {
  return Error(
      ErrorCode::kAnchorMismatch, Action::kCallOperator, what,
      fmt::format(
          "keep a copy of the state folder; compare the log with checkpoints that were kept "
          "elsewhere; when it is explained, 'keyescrow {} --accept REASON'",
          command));
}

bool IsOff(audit::CounterVerdict verdict) {
  return verdict == audit::CounterVerdict::kStoreWentBack ||
         verdict == audit::CounterVerdict::kCounterWentBack;
}

std::string Describe(audit::CounterVerdict verdict, std::uint64_t found,
                     const audit::AnchorState& state, std::uint64_t base) {
  const std::uint64_t expected = state.intent.value_or(state.counter.value_or(base));
  if (verdict == audit::CounterVerdict::kStoreWentBack) {
    return fmt::format(
        "an older store was put back: the tpm's counter is at {}, and the newest anchor in the log "
        "is {}",
        found, expected);
  }
  return fmt::format(
      "the tpm's memory was put back: its counter is at {}, and the log was anchored at {}", found,
      expected);
}

audit::Event NewEvent(audit::EventType type, audit::Outcome outcome, const AnchorIdentity& anchor,
                      std::uint64_t counter) {
  audit::Event event;
  event.type = type;
  event.outcome = outcome;
  event.anchor = audit::EventAnchor{
      counter, anchor.key.nv_index, anchor.key.attestation_public, {}, std::nullopt};
  return event;
}

audit::Event IntentOf(const AnchorIdentity& anchor, std::uint64_t counter) {
  return NewEvent(audit::EventType::kAnchorTpm, audit::Outcome::kPending, anchor, counter);
}

audit::Event AcceptedOf(const AnchorIdentity& anchor, std::uint64_t found, const std::string& why) {
  audit::Event event =
      NewEvent(audit::EventType::kAnchorMismatch, audit::Outcome::kSuccess, anchor, found);
  event.reason = "accepted: " + why;
  return event;
}

audit::Event MismatchOf(const AnchorIdentity& anchor, std::uint64_t found,
                        const std::string& what) {
  audit::Event event =
      NewEvent(audit::EventType::kAnchorMismatch, audit::Outcome::kFailure, anchor, found);
  event.error = ErrorCodeName(ErrorCode::kAnchorMismatch);
  event.reason = what;
  return event;
}

// MayBeNew: by the log, the counter need not have counted for the first time. One that has, and is
// there without having counted, was made anew by somebody else.
bool MayBeNew(const audit::AnchorState& state, std::uint64_t base) {
  return !state.counter || (*state.counter == base && state.intent == base + 1);
}

Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(Agent& agent,
                                                     const audit::AnchorState& state) {
  const AnchorIdentity& anchor = *agent.identity().anchor;
  ASSIGN_OR_RETURN(SecretBytes auth, LoadAnchorAuth(agent.environment().state_dir));
  return agent.environment().devices->OpenAnchor(
      {anchor.key, anchor.tpm_private, MayBeNew(state, anchor.base) ? anchor.base : 0},
      std::move(auth), agent.identity().origin);
}

Status CreateAnchor(Agent& agent) {
  ASSIGN_OR_RETURN(const SecretBytes auth,
                   MakeAnchorAuth(agent.environment().state_dir, *agent.environment().random));
  ASSIGN_OR_RETURN(TpmAnchorBlob made,
                   agent.environment().devices->CreateAnchor(auth, agent.identity().origin));
  RETURN_IF_ERROR(
      agent.SetAnchor({std::move(made.key), std::move(made.attestation_private), made.base}));
  PausePoint("anchor-made");
  return Ok();
}

// RecordMismatch tells the log, once a finding.
Error RecordMismatch(Agent& agent, const audit::AnchorState& state, std::uint64_t found,
                     const std::string& what) {
  if (!state.mismatch_open) {
    auto recorded = agent.journal().Append(MismatchOf(*agent.identity().anchor, found, what));
    if (!recorded) return Mismatch(what).WithContext("it could not be logged either");
  }
  return Mismatch(what);
}

// Certificate has the TPM certify the newest checkpoint and puts that into the log. Where another
// process commits in between, the newer checkpoint is certified; nothing is counted for that.
Result<AppendReceipt> Certificate(Agent& agent, envelope::Anchor& anchor, std::uint64_t counter) {
  for (int attempt = 0; attempt < kMaxCertificates; ++attempt) {
    ASSIGN_OR_RETURN(const std::string checkpoint, agent.journal().LatestCheckpoint());
    const Bytes32 hash = audit::CheckpointHash(audit::NoteText(checkpoint));
    ASSIGN_OR_RETURN(envelope::AnchorStatement statement, anchor.Certify(hash));
    PausePoint("anchor-certified");
    audit::Event event = NewEvent(audit::EventType::kAnchorTpm, audit::Outcome::kSuccess,
                                  *agent.identity().anchor, counter);
    ASSIGN_OR_RETURN(const envelope::AnchorFacts facts,
                     envelope::CheckAnchorStatement(agent.identity().anchor->key,
                                                    agent.identity().origin, statement));
    if (facts.counter != counter) {
      return RecordMismatch(agent, {}, facts.counter,
                            fmt::format("the tpm certified the counter at {} where {} was reached: "
                                        "somebody else counts",
                                        facts.counter, counter));
    }
    event.anchor->attest = std::move(statement.attest);
    event.anchor->signature = statement.signature;
    agent.environment().devices->LastSignature();
    ASSIGN_OR_RETURN(auto receipt, agent.journal().AppendAfter(hash, std::move(event)));
    if (receipt) return std::move(*receipt);
  }
  return Error(ErrorCode::kStoreBusy, Action::kRetry,
               "other processes commit faster than the tpm certifies", "try again in a moment");
}

// CheckIsGone: a new counter is made where the old one cannot be used any more, and only there.
Status CheckIsGone(Agent& agent) {
  if (!agent.identity().anchor) return Ok();
  ASSIGN_OR_RETURN(const audit::AnchorState state, RememberedState(agent));
  const auto old = OpenAnchor(agent, state);
  // Its auth value is lost.
  if (!old && old.error().code() == ErrorCode::kAgentKeyUnavailable) return Ok();
  if (!old) return old.error();
  if (auto read = (*old)->Read(); read) {
    return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                 "the log's counter is there and answers", "leave --new out");
  } else if (read.error().code() != ErrorCode::kAnchorMissing) {
    return std::move(read).error();
  }
  return Ok();
}

// Standing: where the log has the agent's counter, and what is wrong before it is even read.
struct Standing {
  audit::AnchorState state;
  std::string unknown;  // a counter that the log does not know; ""
};

// Stand believes the settings where they know of the counter, and else reads the log. `is_new`: the
// counter that agent.json names, if it does, is not the one that is meant. `thorough`: other
// counters of this log are looked for all the same.
Result<Standing> Stand(Agent& agent, bool is_new, bool thorough) {
  Standing standing;
  const auto& own = agent.identity().anchor;
  std::optional<std::uint32_t> known;
  bool anchored = false;
  if (!is_new) {
    ASSIGN_OR_RETURN(standing.state, RememberedState(agent));
  }
  if (is_new || !KnowsCounter(standing.state)) {
    ASSIGN_OR_RETURN(const LoggedAnchors logged, ReadLoggedAnchors(agent));
    anchored = logged.any();
    if (!is_new) standing.state = logged.Of(own->key);
  }
  if (!is_new && KnowsCounter(standing.state)) {
    if (!thorough) return standing;
    known = own->key.nv_index;
  }
  ASSIGN_OR_RETURN(standing.unknown, UnknownCounter(agent, known, anchored));
  return standing;
}

// Judge judges by the settings first, and where they do not fit by the log itself.
Result<audit::CounterVerdict> Judge(Agent& agent, audit::AnchorState& state, std::uint64_t found) {
  const AnchorIdentity& own = *agent.identity().anchor;
  const audit::CounterVerdict verdict = audit::JudgeCounter(state, own.base, found);
  if (!IsOff(verdict)) return verdict;
  ASSIGN_OR_RETURN(const LoggedAnchors logged, ReadLoggedAnchors(agent));
  state = logged.Of(own.key);
  return audit::JudgeCounter(state, own.base, found);
}

// Count counts what an intent in the log has announced: once, but where a TPM that has other
// counters began a new one at its probe's value and not above it.
Result<std::uint64_t> Count(Agent& agent, envelope::Anchor& anchor, std::uint64_t found) {
  ASSIGN_OR_RETURN(std::uint64_t counter, anchor.Increment(found));
  if (counter == found) {
    ASSIGN_OR_RETURN(counter, anchor.Increment(found));
  }
  PausePoint("anchor-counted");
  if (counter == found + 1) return counter;
  // A first count, and the TPM began it elsewhere than the probe had told.
  const AnchorIdentity& own = *agent.identity().anchor;
  RETURN_IF_ERROR(agent.journal().Append(
      {AcceptedOf(own, counter - 1,
                  "another counter of the tpm was removed while this one was made"),
       IntentOf(own, counter)}));
  return counter;
}

}  // namespace

Result<AnchorResult> AnchorLog(Agent& agent, const AnchorRequest& request) {
  if (!request.accept.empty() && envelope::IsBlankText(request.accept)) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "--accept has no reason",
                 "say why, as it should stand in the log");
  }
  ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(agent.environment().state_dir));
  AnchorResult result;
  if (request.renew) RETURN_IF_ERROR(CheckIsGone(agent));
  result.made = !agent.identity().anchor || request.renew;
  ASSIGN_OR_RETURN(Standing standing, Stand(agent, result.made, !request.accept.empty()));
  audit::AnchorState& state = standing.state;
  if (!standing.unknown.empty() && request.accept.empty()) {
    return Mismatch(standing.unknown, request.renew ? "audit anchor --new" : "audit anchor");
  }
  if (result.made) RETURN_IF_ERROR(CreateAnchor(agent));
  const AnchorIdentity& own = *agent.identity().anchor;
  ASSIGN_OR_RETURN(const auto anchor, OpenAnchor(agent, state));
  ASSIGN_OR_RETURN(const std::uint64_t found, anchor->Read());
  ASSIGN_OR_RETURN(audit::CounterVerdict verdict, Judge(agent, state, found));
  if (!standing.unknown.empty()) {
    // In one commit: a counter that was accepted is never without its first intent.
    RETURN_IF_ERROR(
        agent.journal().Append({MismatchOf(own, found, standing.unknown),
                                AcceptedOf(own, found, request.accept), IntentOf(own, found + 1)}));
    PausePoint("anchor-accepted");
    result.settled = true;
    verdict = audit::CounterVerdict::kRedoIncrement;
  } else if (IsOff(verdict) || state.mismatch_open) {
    const std::string what =
        IsOff(verdict) ? Describe(verdict, found, state, own.base) : std::string(state.mismatch);
    if (request.accept.empty()) return RecordMismatch(agent, state, found, what);
    RETURN_IF_ERROR(agent.journal().Append(AcceptedOf(own, found, request.accept)));
    result.settled = true;
    verdict = audit::CounterVerdict::kRight;
  }
  result.counter = found;
  if (verdict == audit::CounterVerdict::kRight) {
    RETURN_IF_ERROR(agent.journal().Append(IntentOf(own, found + 1)));
    PausePoint("anchor-intended");
  }
  if (verdict != audit::CounterVerdict::kRedoCertify) {
    ASSIGN_OR_RETURN(result.counter, Count(agent, *anchor, found));
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, Certificate(agent, *anchor, result.counter));
  result.log_seq = receipt.seq;
  // Last: where the TPM begins a counter changes when it loses another.
  if (!standing.unknown.empty()) {
    RETURN_IF_ERROR(RemoveUnknownCounters(agent, own.key.nv_index));
  }
  return result;
}

Result<bool> AnchorIsDue(Agent& agent) {
  if (!agent.identity().anchor) return false;
  ASSIGN_OR_RETURN(const audit::AnchorState state, RememberedState(agent));
  if (!state.counter || state.intent) return true;
  const std::int64_t age = agent.Now() - state.time;
  if (age < 0 || age >= kAnchorPeriodSeconds) return true;
  ASSIGN_OR_RETURN(const auto release, RememberedAnchor(agent, kReleaseSetting));
  ASSIGN_OR_RETURN(const auto last, RememberedAnchor(agent, kAnchorSetting));
  return release && last && release->source_seq > last->source_seq;
}

namespace {

// CertifiedCounter has the counter certified with a number that nobody could know before. Its auth
// value lies in the state, so another TPM could be made to answer as this one; the attestation key
// is in this TPM alone.
Result<std::uint64_t> CertifiedCounter(Agent& agent, envelope::Anchor& anchor) {
  Bytes32 nonce{};
  RETURN_IF_ERROR(agent.environment().random->Fill(nonce));
  auto certified = anchor.Certify(nonce);
  if (!certified && (certified.error().code() == ErrorCode::kTpmWrongDevice ||
                     certified.error().code() == ErrorCode::kTpmSrkUntrusted)) {
    return Error(ErrorCode::kAnchorMissing, Action::kCallOperator,
                 "this tpm has not the key that certified the log's counter: it is another tpm, or "
                 "was cleared",
                 "look which tpm --tpm and agent.toml name; keep a copy of the state folder, and "
                 "compare the log with checkpoints that were kept elsewhere");
  }
  ASSIGN_OR_RETURN(const envelope::AnchorStatement statement, std::move(certified));
  ASSIGN_OR_RETURN(const envelope::AnchorFacts facts,
                   envelope::CheckAnchorStatement(agent.identity().anchor->key,
                                                  agent.identity().origin, statement));
  return facts.counter;
}

}  // namespace

AnchorCheck CheckCounter(Agent& agent, const LoggedAnchors* logged) {
  AnchorCheck check;
  const auto& own = agent.identity().anchor;
  const auto judge = [&]() -> Status {
    ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(agent.environment().state_dir));
    audit::AnchorState state;
    bool anchored = false;
    if (logged == nullptr && own) {
      ASSIGN_OR_RETURN(state, RememberedState(agent));
    }
    if (logged == nullptr && !own) {
      ASSIGN_OR_RETURN(const auto remembered, agent.store().GetSetting(kAnchorSetting));
      anchored = remembered.has_value();
    } else if (logged != nullptr || !KnowsCounter(state)) {
      ASSIGN_OR_RETURN(const LoggedAnchors all,
                       ReadLoggedAnchors(agent, logged != nullptr ? *logged : LoggedAnchors()));
      anchored = all.any();
      if (own) state = all.Of(own->key);
    }
    std::optional<std::uint32_t> known;
    if (own && KnowsCounter(state)) known = own->key.nv_index;
    ASSIGN_OR_RETURN(const std::string unknown, UnknownCounter(agent, known, anchored));
    check.asked = true;
    if (!unknown.empty()) return Mismatch(unknown);
    if (!own) return Ok();
    ASSIGN_OR_RETURN(const auto anchor, OpenAnchor(agent, state));
    // One that has not counted yet cannot be certified, and nothing rests on it.
    ASSIGN_OR_RETURN(const std::uint64_t found,
                     state.counter ? CertifiedCounter(agent, *anchor) : anchor->Read());
    ASSIGN_OR_RETURN(const audit::CounterVerdict verdict, Judge(agent, state, found));
    if (IsOff(verdict)) return Mismatch(Describe(verdict, found, state, own->base));
    if (state.mismatch_open) return Mismatch(state.mismatch);
    check.checked = true;
    check.what = fmt::format("the tpm's counter is at {}, where the log has it", found);
    return Ok();
  };
  const Status judged = judge();
  if (judged && !own) {
    check.what = "the log has no counter in a tpm: an older store that is put back is not seen";
    check.remedy = "where there is a tpm, 'keyescrow audit anchor' makes one";
  }
  if (judged) return check;
  const Error& error = judged.error();
  switch (error.code()) {
    case ErrorCode::kAnchorMismatch:
    case ErrorCode::kAnchorMissing:
    case ErrorCode::kAnchorInvalid:
    case ErrorCode::kLogDamaged: check.error = error; break;
    default: break;
  }
  check.what = "the tpm's counter: " + error.message();
  check.remedy = error.hint();
  return check;
}

Result<std::vector<Finding>> AnchorFindings(Agent& agent) {
  std::vector<Finding> findings;
  if (!agent.identity().anchor) {
    ASSIGN_OR_RETURN(const auto anchored, agent.store().GetSetting(kAnchorSetting));
    if (!anchored) return findings;
    const Error error = Mismatch(std::string(kNoCounterNamed));
    findings.push_back({"anchor_mismatch", "", agent.identity().host, Severity::kCritical,
                        error.message(), error.hint()});
    return findings;
  }
  const auto state = RememberedState(agent);
  if (!state) {
    findings.push_back({"anchor_invalid", "", agent.identity().host, Severity::kCritical,
                        state.error().message(), state.error().hint()});
    return findings;
  }
  if (state->mismatch_open) {
    const Error error = Mismatch(state->mismatch);
    findings.push_back({"anchor_mismatch", "", agent.identity().host, Severity::kCritical,
                        error.message(), error.hint()});
    return findings;
  }
  ASSIGN_OR_RETURN(const auto release, RememberedAnchor(agent, kReleaseSetting));
  ASSIGN_OR_RETURN(const auto last, RememberedAnchor(agent, kAnchorSetting));
  if (release && (!last || release->source_seq > last->source_seq) &&
      agent.Now() - release->time > kReleaseGraceSeconds) {
    findings.push_back({"release_not_anchored", "", agent.identity().host, Severity::kWarning,
                        "the restore of " + FormatUtc(release->time) +
                            " has not been anchored in the tpm for a day",
                        "run 'keyescrow audit anchor', best by a timer every hour"});
  }
  return findings;
}

}  // namespace keyescrow::agent
