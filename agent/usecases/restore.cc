#include "agent/usecases/restore.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/ceremony.h"
#include "agent/usecases/declared_sink.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/interrupted_restores.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/path_choice.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/pcr_policy_signature.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/shell_word.h"
#include "agent/usecases/stateless_events.h"
#include "agent/usecases/token_names.h"
#include "agent/usecases/written_key.h"
#include "envelope/base/base64url.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {
namespace {

// EventSink: where the attempt and its outcome are recorded: the journal, or a file without state
// and where the log's key is lost or another's.
class EventSink {
 public:
  EventSink(const Environment& environment, Agent* agent, std::string file, Progress& progress)
      : environment_(environment),
        agent_(agent),
        stateless_(environment, "restore", std::move(file)),
        progress_(progress) {}

  // Record returns once the event is durable.
  Status Record(audit::Event event, const store::Change& change, bool is_last) {
    if (agent_ == nullptr) return stateless_.Record(std::move(event));
    ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent_->Policy());
    audit::Event logged = event;
    logged.policy = in_force->Event();
    if (is_last) environment_.devices->LastSignature();
    auto receipt = agent_->journal().Append(std::move(logged), change);
    if (receipt) {
      receipt_ = std::move(*receipt);
      return Ok();
    }
    // A wrong key of the log, or none, stands in nobody's way at 3 a.m.
    const bool has_no_key = agent_->cannot_log().has_value() ||
                            receipt.error().code() == ErrorCode::kAgentKeyUnavailable;
    if (receipt_ || !has_no_key) return std::move(receipt).error();
    progress_.Warn("going on without the log: " + receipt.error().message() + "; " +
                   receipt.error().hint());
    agent_ = nullptr;
    return stateless_.Record(std::move(event));
  }

  // logging returns the agent whose log has the events, or null.
  Agent* logging() const { return agent_; }

  const std::optional<AppendReceipt>& receipt() const { return receipt_; }
  const std::string& file() const { return stateless_.file(); }

 private:
  const Environment& environment_;
  Agent* agent_;
  StatelessEvents stateless_;
  Progress& progress_;
  std::optional<AppendReceipt> receipt_;
};

// RecordDoubt tells that the key of `request` may have been released. Without a log it is a request
// that gets no end: an event of its own would be nobody's word.
void RecordDoubt(EventSink& events, const audit::Event& request, std::uint64_t asked,
                 const std::string& why, Progress& progress) {
  if (events.logging() == nullptr) {
    progress.Warn(
        "the key may have been released, and its event has no end; on the agent's host: "
        "keyescrow import-event " +
        ShellWord(events.file()));
    return;
  }
  if (Status recorded = events.Record(UncertainRelease(request, asked, why), {}, true); !recorded) {
    progress.Warn("the outcome could not be logged: " + recorded.error().message());
  }
  progress.Warn("the log says that the key may have been released");
}

audit::Event MakeEvent(audit::EventType type, audit::Outcome outcome,
                       const envelope::SealedEnvelope& sealed, const envelope::PathRecord& path,
                       const RestoreRequest& request) {
  const envelope::Header& header = sealed.header();
  audit::Event event;
  event.type = type;
  event.outcome = outcome;
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  event.policy = audit::EventPolicy{header.policy, 0, {}};
  event.paths = DescribePaths({&path});
  event.reason = request.reason;
  event.ticket = request.ticket;
  return event;
}

// RecordRefusal logs an attempt that found no path to try.
void RecordRefusal(Agent* agent, const envelope::SealedEnvelope& sealed, bool is_stored,
                   const RestoreRequest& request, const Error& error, Progress& progress) {
  if (agent == nullptr) return;
  const envelope::Header& header = sealed.header();
  audit::Event event;
  event.type = audit::EventType::kRestoreFailed;
  event.outcome = audit::Outcome::kFailure;
  event.error = ErrorCodeName(error.code());
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  event.reason = request.reason;
  event.ticket = request.ticket;
  store::Change change;
  const envelope::PathRecord* path = header.FindPath(request.via);
  if (is_stored && path != nullptr && TellsOfThePath(error) && IsOfThisHost(*agent, *path)) {
    change.path_outcomes.push_back({header.key_name, header.key_version, header.revision, path->id,
                                    agent->Now(), false, event.error});
  }
  if (auto recorded = agent->journal().Append(std::move(event), change); !recorded) {
    progress.Warn("the failure could not be logged: " + recorded.error().message());
  }
}

// CheckScope: --accept-unknown-agent takes an agent of whom nothing is known, not one that is known
// here and may not sign for this key.
Status CheckScope(const envelope::SealedEnvelope& sealed, const envelope::ReadOptions& trust) {
  const envelope::Header& header = sealed.header();
  const bool is_known = std::ranges::any_of(
      trust.trusted,
      [&](const envelope::TrustedAgent& trusted) { return trusted.thumbprint == header.agent; });
  if (sealed.agent_trusted() || !is_known) return Ok();
  return Error(ErrorCode::kAgentOutOfScope, Action::kFixInput,
               "the agent " + header.agent + " is trusted, but not for the key " + header.key_name +
                   " of the host " + header.host,
               "check who made this envelope; 'trust list' shows what each agent may sign for")
      .WithFailure(Failure::kSignature);
}

// DenyRelease logs that the policy refused.
void DenyRelease(Agent& agent, const envelope::SealedEnvelope& sealed,
                 const RestoreRequest& request, const Error& error, Progress& progress) {
  const envelope::Header& header = sealed.header();
  audit::Event event;
  event.type = audit::EventType::kRestoreDenied;
  event.outcome = audit::Outcome::kFailure;
  event.error = ErrorCodeName(error.code());
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  if (const auto in_force = agent.Policy()) event.policy = (*in_force)->Event();
  event.reason = request.reason;
  event.ticket = request.ticket;
  if (auto recorded = agent.journal().Append(std::move(event)); !recorded) {
    progress.Warn("the refusal could not be logged: " + recorded.error().message());
  }
}

// CheckExpected compares what was opened by name and --expect with the header.
Status CheckExpected(const envelope::Header& header, const RestoreRequest& request,
                     const EnvelopeSource& source) {
  std::string name = source.record ? source.record->key_name : "";
  std::optional<std::uint64_t> version = request.version;
  if (!request.expect.empty()) {
    const std::size_t at = request.expect.rfind('@');
    name = request.expect.substr(0, at);
    if (at != std::string::npos) {
      const std::string digits = request.expect.substr(at + 1);
      if (digits.empty() || digits.size() > 10 ||
          digits.find_first_not_of("0123456789") != std::string::npos) {
        return Error(ErrorCode::kUsage, Action::kFixInput,
                     "--expect has no version number after '@'", "write NAME or NAME@VERSION");
      }
      version = std::stoull(digits);
    }
    if (!envelope::IsKeyName(name)) {
      return Error(ErrorCode::kInvalidName, Action::kFixInput, "--expect does not name a key",
                   "write NAME or NAME@VERSION");
    }
  }
  if ((!name.empty() && header.key_name != name) || (version && header.key_version != *version)) {
    return Error(ErrorCode::kExpectationFailed, Action::kFixInput,
                 "the envelope holds " + header.key_name + " version " +
                     std::to_string(header.key_version) + ", not the key that was asked for",
                 "name the right envelope, or leave --expect and --version out");
  }
  return Ok();
}

Result<std::unique_ptr<KeyLocation>> FindSink(const Environment& environment,
                                              const RestoreRequest& request,
                                              const std::string& key_name) {
  std::string sink = request.sink;
  if (sink.empty()) {
    const DeclaredKey* declared = environment.config->FindKey(key_name);
    if (declared == nullptr) {
      return Error(ErrorCode::kUsage, Action::kFixInput, "where should the key go",
                   "add --to FILE (or --to - for standard output, --to exec:CMD for a command)");
    }
    ASSIGN_OR_RETURN(sink, DeclaredSink(*declared, "--to SINK"));
  }
  ASSIGN_OR_RETURN(auto location, ParseLocation(sink, {request.luks_unlock_file}));
  RETURN_IF_ERROR(CheckOutsideState(*location, environment.state_dir));
  if (request.accept_unknown_agent) {
    // Its origin is unproven: it may only ever become a new file.
    struct stat status {};
    const std::string path = location->FilePath();
    if (path.empty() || lstat(path.c_str(), &status) == 0) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "what an unknown agent signed is written to a new file alone",
                   "name a file that does not exist yet with --to FILE");
    }
  }
  RETURN_IF_ERROR(location->CheckWritable());
  return location;
}

// WasMadeForKeyslot tells whether the version is a key that `backup --generate` made here for a
// LUKS volume: random, so that guessing it needs no slowing down.
Result<bool> WasMadeForKeyslot(Agent& agent, const std::string& key_name, std::uint32_t version) {
  bool made = false;
  EventFilter filter;
  filter.key_name = key_name;
  filter.types = {audit::EventType::kKeyDelivered};
  RETURN_IF_ERROR(agent.journal().Events(filter, [&](const LoggedEvent& logged) {
    // Imported events vouch for nothing.
    const bool is_own = logged.event && logged.event->source != audit::kStatelessSource;
    made = made || (is_own && logged.event->key && logged.event->key->version == version);
    return !made;
  }));
  return made;
}

// Deliver writes the key. What was made for a keyslot is random, and is not stretched as a
// passphrase is; unlike a new one it may open the volume already.
Result<WriteOutcome> Deliver(Agent* agent, const envelope::Header& header, KeyLocation& sink,
                             const SecretBytes& key, WriteOptions options) {
  constexpr std::size_t kNeedsNoStretching = 32;
  const bool may_be_random = agent != nullptr && !sink.VolumePath().empty() &&
                             !options.volume_key && key.size() >= kNeedsNoStretching;
  if (may_be_random) {
    // Where the log cannot be asked it counts as a passphrase.
    const auto is_random = WasMadeForKeyslot(*agent, header.key_name, header.key_version);
    if (is_random && *is_random) {
      ASSIGN_OR_RETURN(const auto keyslot, sink.FindKeyslot(key));
      if (keyslot) return WriteOutcome{.already_same = true, .keyslot = keyslot};
      options.random_key = true;
    }
  }
  return sink.Write(key, options);
}

// PrepareModule lets the one module that can be meant load while the envelope is read and verified:
// the one that was named, or the registered one where the path's id is that of a token.
void PrepareModule(const Environment& environment, Agent* agent, const RestoreRequest& request) {
  std::string module = request.module;
  if (module.empty() && agent != nullptr && request.via.starts_with("token")) {
    const auto tokens = agent->store().Tokens();
    if (tokens && !tokens->empty()) module = tokens->front().module;
    for (std::size_t index = 1; tokens && index < tokens->size(); ++index) {
      if ((*tokens)[index].module != module) module.clear();
    }
  }
  if (!module.empty()) environment.devices->PrepareModule(module);
}

// Prove signs that the path opened. A key that was delivered is not held back for want of it.
std::optional<audit::EventDrill> Prove(const Environment& environment, Agent* agent,
                                       const envelope::SealedEnvelope& sealed,
                                       const envelope::OpenedEnvelope& opened) {
  const auto checkpoint = NewestCheckpoint(agent);
  if (!checkpoint) return std::nullopt;
  const auto drill =
      ProveOpened(sealed, opened, {*checkpoint, std::nullopt, environment.clock->NowUnixSeconds()});
  if (!drill) return std::nullopt;
  return *drill;
}

}  // namespace

Result<RestoreResult> Restore(const Environment& environment, Agent* agent,
                              const RestoreRequest& request, Secrets& secrets, Progress& progress) {
  PrepareModule(environment, agent, request);
  ASSIGN_OR_RETURN(const EnvelopeSource source,
                   FindEnvelope(agent, request.name_or_file, request.version));
  ASSIGN_OR_RETURN(const envelope::ReadOptions trust,
                   TrustFor(agent, request.trusted_agent, request.accept_unknown_agent));
  ASSIGN_OR_RETURN(const envelope::SealedEnvelope sealed,
                   envelope::SealedEnvelope::Read(source.bytes, trust));
  RETURN_IF_ERROR(CheckScope(sealed, trust));
  const bool is_kept = IsKept(agent, source, sealed);
  const envelope::Header& header = sealed.header();
  if (source.record && source.record->sha256 != sealed.hash()) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store's envelope is not the one that its row and the log name",
                 "restore from an exported file, and run 'keyescrow verify'");
  }
  RETURN_IF_ERROR(CheckExpected(header, request, source));
  std::vector<std::string> reported;
  if (agent != nullptr) {
    auto allowed = CheckRelease(*agent, header, request.reason, request.ticket);
    if (!allowed) {
      DenyRelease(*agent, sealed, request, allowed.error(), progress);
      return std::move(allowed).error();
    }
    reported = FindingTexts(*allowed);
  }
  if (!sealed.agent_trusted()) {
    if (request.via.empty()) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "--accept-unknown-agent needs an explicit path",
                   "look at the paths with 'keyescrow show', then add --via ID");
    }
    progress.Warn("the origin of this envelope is unproven: the agent " + header.agent +
                  " is not trusted, and anybody can make an envelope to public keys");
  }
  PathOpenOptions options;
  options.devices = environment.devices;
  options.secrets = &secrets;
  options.progress = &progress;
  options.store = agent != nullptr ? &agent->store() : nullptr;
  options.module = request.module;
  options.purpose = "to restore " + header.key_name;
  options.use_last_try = request.use_last_try;
  ASSIGN_OR_RETURN(options.pcr_policy_signature,
                   ReadPcrPolicySignature(request.pcr_policy_signature));
  StretchedPasswords passwords;
  PathOpener opener(sealed, options, passwords);
  PathChooser chooser(sealed, opener, secrets.Desk());
  progress.Step("looking for the path's devices");
  auto chosen = request.via.empty() ? chooser.Next() : chooser.Named(request.via);
  if (!chosen) {
    RecordRefusal(agent, sealed, is_kept, request, chosen.error(), progress);
    return std::move(chosen).error();
  }
  std::size_t index = *chosen;
  RETURN_IF_ERROR(secrets.MayAsk([&] { return TokensToOpen(header, request.via, options.store); }));
  // What would make the write fail is found before a PIN or a try is spent.
  std::unique_ptr<KeyLocation> found_sink;
  if (request.into == nullptr) {
    ASSIGN_OR_RETURN(found_sink, FindSink(environment, request, header.key_name));
  }
  KeyLocation* const sink = request.into != nullptr ? request.into : found_sink.get();
  if (!sealed.agent_trusted()) {
    std::string factors = envelope::FactorTypes(header.paths[index].factors);
    progress.Warn("the path " + header.paths[index].id + " asks for: " + factors);
  }

  WriteOptions write_options;
  write_options.replace = request.replace;
  if (agent != nullptr) {
    ASSIGN_OR_RETURN(write_options.volume_key,
                     IsVolumeKey(*agent, header.key_name, header.key_version));
  }

  EventSink events(environment, agent, agent == nullptr ? request.event_log : "", progress);
  while (true) {
    const envelope::PathRecord& path = header.paths[index];
    RETURN_IF_ERROR(events.Record(MakeEvent(audit::EventType::kRestoreRequested,
                                            audit::Outcome::kPending, sealed, path, request),
                                  {}, false));
    const std::uint64_t asked = events.receipt() ? events.receipt()->seq : 0;
    RestoreResult result;
    result.findings = reported;
    const auto fail = [&](Error error) -> Error {
      audit::Event event = MakeEvent(audit::EventType::kRestoreFailed, audit::Outcome::kFailure,
                                     sealed, path, request);
      event.error = ErrorCodeName(error.code());
      store::Change change;
      if (is_kept && TellsOfThePath(error) && IsOfThisHost(*agent, path)) {
        change.path_outcomes.push_back({header.key_name, header.key_version, header.revision,
                                        path.id, agent->Now(), false, event.error});
      }
      if (Status recorded = events.Record(std::move(event), change, true); !recorded) {
        progress.Warn("the failure could not be logged: " + recorded.error().message());
      }
      return error;
    };
    auto opened = opener.Open(index);
    if (!opened) {
      Error error = fail(std::move(opened).error());
      if (!request.via.empty() || !MayTryAnotherPath(error)) return error;
      chooser.Refuse(path.id, error);
      ASSIGN_OR_RETURN(index, chooser.Next());  // where none is left, its error has every reason
      progress.Warn("the path " + path.id + " does not open here: " + error.message());
      continue;
    }
    opener.Finish();
    progress.Step(sink->VolumePath().empty() ? "writing the key"
                                             : "adding a keyslot, which may take a minute");
    PausePoint("content-open");
    auto written = Deliver(agent, header, *sink, opened->content(), write_options);
    if (!written && sink->TakesParts()) {
      // What a command or a reader got before it failed cannot be taken back.
      const std::string why = sink->Describe() + " failed: " + written.error().message();
      RecordDoubt(events,
                  MakeEvent(audit::EventType::kRestoreRequested, audit::Outcome::kPending, sealed,
                            path, request),
                  asked, why, progress);
      return std::move(written).error();
    }
    if (!written) return fail(std::move(written).error());
    PausePoint("key-written");

    audit::Event event = MakeEvent(audit::EventType::kRestoreCompleted, audit::Outcome::kSuccess,
                                   sealed, path, request);
    event.drill = Prove(environment, events.logging(), sealed, *opened);
    store::Change change;
    if (is_kept) {
      store::PathOutcome outcome{
          header.key_name, header.key_version, header.revision, path.id, agent->Now(), true, ""};
      outcome.proven_by = "restore";
      if (event.drill) outcome.event_index = 0;
      change.path_outcomes.push_back(std::move(outcome));
    }
    if (agent != nullptr && source.record) {
      AddRestoredFingerprint(*agent, header.key_name, header.key_version, opened->content(),
                             sink->FilePath(), change);
      // A header that cannot be read a moment later is told by `status`; the key was delivered.
      auto binding =
          MakeLuksBinding(*agent, header.key_name, header.key_version, *sink, written->keyslot);
      if (binding && *binding) change.luks_bindings.push_back(std::move(**binding));
    }
    if (agent != nullptr && !written->previous_path.empty()) {
      change.destinations.push_back({AbsolutePath(sink->FilePath()), header.key_name,
                                     header.key_version, AbsolutePath(written->previous_path),
                                     agent->Now()});
    }
    if (Status recorded = events.Record(std::move(event), change, true); !recorded) {
      result.outcome_logged = false;
      result.findings.push_back("the key was delivered, but its outcome could not be logged: " +
                                recorded.error().message());
    }
    // One that stood there keeps the mode that it had.
    if (written->written && written->previous_path.empty()) {
      if (std::string open = OpenToOthers(sink->FilePath()); !open.empty()) {
        result.findings.push_back(std::move(open));
      }
    }
    result.key_name = header.key_name;
    result.key_version = header.key_version;
    result.path_id = path.id;
    result.sink = sink->Describe();
    result.already_same = written->already_same;
    result.previous_path = written->previous_path;
    result.keyslot = written->keyslot;
    result.agent = header.agent;
    result.agent_trusted = sealed.agent_trusted();
    result.event_file = events.file();
    result.size_bytes = opened->content().size();
    if (events.receipt()) {
      result.log_seq = events.receipt()->seq;
      result.p256_signed = events.receipt()->p256_signed;
      if (!result.p256_signed) {
        result.findings.push_back(
            "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
      }
    }
    return result;
  }
}

}  // namespace keyescrow::agent
