#include "agent/usecases/drill.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "agent/audit/drill_proof.h"
#include "agent/usecases/ceremony.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/pcr_policy_signature.h"
#include "agent/usecases/stateless_events.h"
#include "agent/usecases/token_names.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

// NothingWasTried: no authorisation was spent, and nothing is learnt of the path.
bool NothingWasTried(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnsupportedHere:
    case ErrorCode::kTpmUnavailable:
    case ErrorCode::kTpmLockout:
    case ErrorCode::kTpmLastTry:
    case ErrorCode::kModuleMissing:
    case ErrorCode::kTokenNotFound:
    case ErrorCode::kTokenAmbiguous:
    case ErrorCode::kTokenNotRegistered:
    case ErrorCode::kPinLocked:
    case ErrorCode::kPinLastTry:
    case ErrorCode::kSecretSourceMissing:
    case ErrorCode::kFactorMissing: return true;
    default: return false;
  }
}

// Target: one envelope, and which of its paths.
struct Target {
  std::string name_or_file;
  std::uint32_t version = 0;          // 0: the newest
  std::vector<std::string> path_ids;  // empty: all
};

// CountedProgress puts "2 of 12" before what is being done.
class CountedProgress final : public Progress {
 public:
  explicit CountedProgress(Progress& inner) : inner_(inner) {}
  void SetPrefix(std::string prefix) { prefix_ = std::move(prefix); }
  void Step(std::string_view what) override { inner_.Step(prefix_ + std::string(what)); }
  void Pause() override { inner_.Pause(); }
  void Note(std::string_view text) override { inner_.Note(text); }
  void Warn(std::string_view text) override { inner_.Warn(text); }

 private:
  Progress& inner_;
  std::string prefix_;
};

// Driller holds what all envelopes of one run share.
class Driller {
 public:
  Driller(const Environment& environment, Agent* agent, const DrillRequest& request,
          const std::optional<audit::Challenge>& challenge, Secrets& secrets, Progress& progress)
      : environment_(environment),
        agent_(agent),
        request_(request),
        challenge_(challenge),
        secrets_(secrets),
        progress_(progress),
        tokens_({environment.devices, &secrets.Pins(), agent != nullptr ? &agent->store() : nullptr,
                 request.module, false}),
        stateless_(environment, "drill", request.event_log) {
    if (challenge) report_.challenge = challenge->nonce;
  }

  Status DrillAll(const std::vector<Target>& targets, bool is_list);
  Status AnswerNonces();
  DrillReport Take() {
    tokens_.Finish();
    report_.event_file = stateless_.file();
    return std::move(report_);
  }

 private:
  Status DrillOne(const Target& target, bool is_list);
  Status DrillEnvelope(const envelope::SealedEnvelope& sealed, const EnvelopeSource& source,
                       const Target& target);
  // Prove opens one path and signs; the error says why not.
  Result<audit::EventDrill> Prove(const envelope::SealedEnvelope& sealed, PathOpener& opener,
                                  std::size_t index, const envelope::DrillCheckpoint& checkpoint);
  void Count(DrillOutcome outcome);
  Status Record(std::vector<audit::Event> events, const store::Change& change);
  static audit::Event MakeEvent(const std::optional<Error>& error, DrillOutcome outcome);

  const Environment& environment_;
  Agent* agent_;
  const DrillRequest& request_;
  const std::optional<audit::Challenge>& challenge_;
  Secrets& secrets_;
  CountedProgress progress_;
  TokenSessions tokens_;
  RefusedPasswords refused_passwords_;
  StatelessEvents stateless_;
  DrillReport report_;
};

DrillOutcome OutcomeOf(const Error& error) {
  return NothingWasTried(error.code()) ? DrillOutcome::kSkipped : DrillOutcome::kFailed;
}

audit::Event Driller::MakeEvent(const std::optional<Error>& error, DrillOutcome outcome) {
  audit::Event event;
  event.type = outcome == DrillOutcome::kProven    ? audit::EventType::kDrillPassed
               : outcome == DrillOutcome::kSkipped ? audit::EventType::kDrillSkipped
                                                   : audit::EventType::kDrillFailed;
  event.outcome =
      outcome == DrillOutcome::kProven ? audit::Outcome::kSuccess : audit::Outcome::kFailure;
  if (error) {
    event.error = ErrorCodeName(error->code());
    event.reason = error->message();
  }
  return event;
}

void Driller::Count(DrillOutcome outcome) {
  switch (outcome) {
    case DrillOutcome::kProven: ++report_.num_proven; break;
    case DrillOutcome::kFailed: ++report_.num_failed; break;
    case DrillOutcome::kSkipped: ++report_.num_skipped; break;
  }
}

Status Driller::Record(std::vector<audit::Event> events, const store::Change& change) {
  if (events.empty()) return Ok();
  if (agent_ == nullptr) {
    for (audit::Event& event : events) RETURN_IF_ERROR(stateless_.Record(std::move(event)));
    return Ok();
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt,
                   agent_->journal().Append(std::move(events), change));
  report_.p256_signed = report_.p256_signed && receipt.p256_signed;
  return Ok();
}

Result<audit::EventDrill> Driller::Prove(const envelope::SealedEnvelope& sealed, PathOpener& opener,
                                         std::size_t index,
                                         const envelope::DrillCheckpoint& checkpoint) {
  RETURN_IF_ERROR(opener.Present(index));
  for (const envelope::FactorRecord& factor : sealed.header().paths[index].factors) {
    if (IdentityOf(factor)) RETURN_IF_ERROR(RequirePin(tokens_.NameOf(factor), secrets_));
  }
  ASSIGN_OR_RETURN(const envelope::OpenedEnvelope opened, opener.Open(index));
  ProofRequest proof;
  proof.checkpoint = checkpoint;
  if (challenge_) proof.challenge = challenge_->nonce;
  proof.time = environment_.clock->NowUnixSeconds();
  return ProveOpened(sealed, opened, proof);
}

Status Driller::DrillEnvelope(const envelope::SealedEnvelope& sealed, const EnvelopeSource& source,
                              const Target& target) {
  const envelope::Header& header = sealed.header();
  const bool is_kept = IsKept(agent_, source, sealed);
  KeyDrill& key = report_.keys.back();
  key.key_name = header.key_name;
  key.key_version = header.key_version;
  key.envelope_hash = sealed.hash();
  PathOpenOptions options;
  options.devices = environment_.devices;
  options.secrets = &secrets_;
  options.progress = &progress_;
  options.store = agent_ != nullptr ? &agent_->store() : nullptr;
  options.module = request_.module;
  options.purpose = request_.all ? "to drill every key" : "to drill " + header.key_name;
  options.tokens = &tokens_;
  options.refused_passwords = &refused_passwords_;
  ASSIGN_OR_RETURN(options.pcr_policy_signature,
                   ReadPcrPolicySignature(request_.pcr_policy_signature));
  StretchedPasswords passwords;  // one envelope's: each has salts of its own
  PathOpener opener(sealed, options, passwords);
  ASSIGN_OR_RETURN(const envelope::DrillCheckpoint checkpoint, NewestCheckpoint(agent_));
  std::vector<audit::Event> events;
  store::Change change;
  for (std::size_t index = 0; index < header.paths.size(); ++index) {
    const envelope::PathRecord& path = header.paths[index];
    if (!target.path_ids.empty() && std::ranges::count(target.path_ids, path.id) == 0) continue;
    progress_.Step("proving " + header.key_name + " by " + path.id);
    PathDrill drill;
    drill.path_id = path.id;
    drill.expression = PathExpressionText(path);
    drill.drill_key = path.drill_key;
    auto proven = Prove(sealed, opener, index, checkpoint);
    drill.outcome = proven ? DrillOutcome::kProven : OutcomeOf(proven.error());
    if (!proven) drill.error = proven.error();
    // That another host's TPM is not here says nothing of the path.
    if (!proven && agent_ != nullptr && !IsOfThisHost(*agent_, path) &&
        proven.error().code() == ErrorCode::kTpmWrongDevice) {
      drill.outcome = DrillOutcome::kSkipped;
    }
    audit::Event event = MakeEvent(drill.error, drill.outcome);
    event.key = audit::EventKey{header.key_name, header.key_version};
    event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
    event.paths = DescribePaths({&path});
    if (proven) {
      event.drill = *proven;
      drill.signature = proven->signature;
      event.source = checkpoint.origin;  // as whoever writes the event fills it in
      ASSIGN_OR_RETURN(const auto statement, audit::DrillStatementOf(event));
      ASSIGN_OR_RETURN(drill.statement, envelope::FormatDrillStatement(statement));
    }
    const bool tells = proven.has_value() ||
                       (drill.outcome == DrillOutcome::kFailed && TellsOfThePath(*drill.error));
    if (tells && is_kept) {
      store::PathOutcome outcome{header.key_name, header.key_version, header.revision, path.id,
                                 agent_->Now(),   proven.has_value(), event.error};
      if (proven) {
        outcome.proven_by = "drill";
        outcome.event_index = events.size();
      }
      change.path_outcomes.push_back(std::move(outcome));
    }
    Count(drill.outcome);
    key.paths.push_back(std::move(drill));
    events.push_back(std::move(event));
  }
  return Record(std::move(events), change);
}

Status Driller::DrillOne(const Target& target, bool is_list) {
  report_.keys.emplace_back();
  report_.keys.back().key_name = target.name_or_file;
  report_.keys.back().key_version = target.version;
  const auto unreadable = [&](const Error& error) -> Status {
    if (!is_list) return error;
    // One envelope that is damaged or gone does not keep the others from being proven.
    report_.keys.back().error = error;
    Count(DrillOutcome::kFailed);
    audit::Event event = MakeEvent(error, DrillOutcome::kFailed);
    event.key = audit::EventKey{target.name_or_file, target.version};
    std::vector<audit::Event> events;
    events.push_back(std::move(event));
    return Record(std::move(events), {});
  };
  std::optional<std::uint64_t> version;
  if (target.version != 0) version = target.version;
  const auto source = FindEnvelope(agent_, target.name_or_file, version);
  if (!source) return unreadable(source.error());
  ASSIGN_OR_RETURN(const envelope::ReadOptions trust,
                   TrustFor(agent_, request_.trusted_agent, false));
  const auto sealed = envelope::SealedEnvelope::Read(source->bytes, trust);
  if (!sealed) return unreadable(sealed.error());
  if (source->record && source->record->sha256 != sealed->hash()) {
    return unreadable(Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                            "the store's envelope is not the one that its row and the log name",
                            "compare the store with a copy, and run 'keyescrow verify'"));
  }
  for (const std::string& id : target.path_ids) {
    if (sealed->header().FindPath(id) != nullptr) continue;
    if (request_.all) {  // --via names a path that some keys have
      report_.keys.pop_back();
      return Ok();
    }
    return unreadable(
        Error(ErrorCode::kPathNotFound, Action::kFixInput,
              "the envelope of " + sealed->header().key_name + " has no path \"" + id + "\"",
              "'keyescrow show' lists its paths")
            .WithFailure(Failure::kFactor));
  }
  return DrillEnvelope(*sealed, *source, target);
}

Status Driller::DrillAll(const std::vector<Target>& targets, bool is_list) {
  for (std::size_t index = 0; index < targets.size(); ++index) {
    if (is_list) progress_.SetPrefix(fmt::format("{} of {}: ", index + 1, targets.size()));
    RETURN_IF_ERROR(DrillOne(targets[index], is_list));
  }
  if (!report_.keys.empty()) return Ok();
  return Error(ErrorCode::kPathNotFound, Action::kFixInput,
               "no key has a path \"" + request_.via + "\"", "'keyescrow list' shows their paths")
      .WithFailure(Failure::kFactor);
}

Status Driller::AnswerNonces() {
  if (!challenge_) return Ok();
  for (const envelope::TokenRecord& token : challenge_->tokens) {
    const envelope::FactorRecord record =
        std::visit([](const auto& row) { return envelope::FactorRecord(row); }, token);
    const TokenIdentity identity = *IdentityOf(record);
    NonceAnswer row;
    row.token = *identity.token;
    row.key_sha256 = Sha256(*identity.spki);
    progress_.Step("asking the token " + row.token);
    const auto answer = [&]() -> Result<Bytes32> {
      RETURN_IF_ERROR(tokens_.Locate(record));
      row.token = tokens_.NameOf(record);
      RETURN_IF_ERROR(RequirePin(row.token, secrets_));
      ASSIGN_OR_RETURN(const SecretBytes nonce, tokens_.Open(record));
      return audit::AnswerNonce(nonce);
    }();
    row.outcome = answer ? DrillOutcome::kProven : OutcomeOf(answer.error());
    if (answer) {
      row.answer = *answer;
    } else {
      row.error = answer.error();
    }
    audit::Event event = MakeEvent(row.error, row.outcome);
    event.paths = {
        {"", {{std::string(envelope::FactorType(record)), row.token, row.key_sha256, ""}}}};
    if (answer) event.reason = "the token answered an auditor's nonce";
    std::vector<audit::Event> events;
    events.push_back(std::move(event));
    RETURN_IF_ERROR(Record(std::move(events), {}));
    report_.answers.push_back(std::move(row));
  }
  return Ok();
}

Result<std::vector<Target>> AllTargets(Agent& agent, const DrillRequest& request) {
  std::vector<Target> targets;
  store::EscrowStore::EnvelopeQuery query;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    // Versions of one key follow each other; the one in use stays.
    if (record.standing != store::VersionStanding::kEscrowed) return true;
    if (targets.empty() || targets.back().name_or_file != record.key_name) targets.emplace_back();
    targets.back().name_or_file = record.key_name;
    targets.back().version = record.key_version;
    if (!request.via.empty()) targets.back().path_ids = {request.via};
    return true;
  }));
  if (targets.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is escrowed here",
                 "escrow one with 'keyescrow backup NAME --from FILE --path EXPR'");
  }
  return targets;
}

// DrawnTargets joins the drawn paths of one version of a key.
std::vector<Target> DrawnTargets(const audit::Challenge& challenge) {
  std::map<std::pair<std::string, std::uint32_t>, Target> joined;
  for (const audit::DrawnPath& drawn : challenge.drawn) {
    const auto [found, is_new] = joined.try_emplace({drawn.key_name, drawn.key_version});
    Target& target = found->second;
    const bool every_path = !is_new && target.path_ids.empty();
    target.name_or_file = drawn.key_name;
    target.version = drawn.key_version;
    if (drawn.path_id.empty()) {
      target.path_ids.clear();
    } else if (!every_path) {
      target.path_ids.push_back(drawn.path_id);
    }
  }
  std::vector<Target> targets;
  for (auto& [key, target] : joined) targets.push_back(std::move(target));
  return targets;
}

Result<std::optional<audit::Challenge>> ReadChallenge(Agent* agent, const std::string& file) {
  if (file.empty()) return std::optional<audit::Challenge>();
  ASSIGN_OR_RETURN(const Bytes text, ReadDocument(file, "challenge"));
  ASSIGN_OR_RETURN(audit::Challenge challenge, audit::ParseChallenge(AsText(text)));
  if (agent != nullptr && !challenge.origin.empty() &&
      challenge.origin != agent->identity().origin) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the challenge was drawn from another log: " + challenge.origin,
                 "run the drill where that log is kept");
  }
  return std::optional(std::move(challenge));
}

// TokensOfTargets: what could ask for a PIN; an envelope that cannot be read is told when its turn
// comes.
Result<Secrets::TokenNames> TokensOfTargets(Agent* agent, const DrillRequest& request,
                                            const std::vector<Target>& targets,
                                            const std::optional<audit::Challenge>& challenge) {
  store::EscrowStore* const store = agent != nullptr ? &agent->store() : nullptr;
  ASSIGN_OR_RETURN(const auto trust, TrustFor(agent, request.trusted_agent, false));
  Secrets::TokenNames names;
  for (const Target& target : targets) {
    const auto source = FindEnvelope(
        agent, target.name_or_file,
        target.version != 0 ? std::optional<std::uint64_t>(target.version) : std::nullopt);
    if (!source) continue;
    const auto sealed = envelope::SealedEnvelope::Read(source->bytes, trust);
    if (!sealed) continue;
    for (const envelope::PathRecord& path : sealed->header().paths) {
      if (!target.path_ids.empty() && std::ranges::count(target.path_ids, path.id) == 0) continue;
      ASSIGN_OR_RETURN(Secrets::TokenNames more, TokensOf(path, store));
      names.merge(more);
    }
  }
  if (!challenge) return names;
  envelope::PathRecord asked;
  for (const envelope::TokenRecord& token : challenge->tokens) {
    asked.factors.push_back(
        std::visit([](const auto& row) { return envelope::FactorRecord(row); }, token));
  }
  ASSIGN_OR_RETURN(Secrets::TokenNames more, TokensOf(asked, store));
  names.merge(more);
  return names;
}

}  // namespace

std::string_view DrillOutcomeName(DrillOutcome outcome) {
  switch (outcome) {
    case DrillOutcome::kProven: return "proven";
    case DrillOutcome::kFailed: return "failed";
    case DrillOutcome::kSkipped: return "skipped";
  }
  return "skipped";
}

bool DrillReport::Complete() const {
  return num_failed == 0 && num_skipped == 0 &&
         std::ranges::all_of(answers, [](const NonceAnswer& answer) {
           return answer.outcome == DrillOutcome::kProven;
         });
}

std::optional<Error> DrillReport::Cause() const {
  std::optional<Error> skipped;
  for (const KeyDrill& key : keys) {
    if (key.error) return key.error;
    for (const PathDrill& path : key.paths) {
      if (path.outcome == DrillOutcome::kFailed) return path.error;
      if (path.outcome == DrillOutcome::kSkipped && !skipped) skipped = path.error;
    }
  }
  return skipped;
}

Result<DrillReport> Drill(const Environment& environment, Agent* agent, const DrillRequest& request,
                          Secrets& secrets, Progress& progress) {
  ASSIGN_OR_RETURN(const std::optional<audit::Challenge> challenge,
                   ReadChallenge(agent, request.challenge_file));
  const bool drawn = challenge && request.name_or_file.empty() && !request.all;
  if (drawn && challenge->drawn.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 request.challenge_file + " draws no keys: which are to be drilled?",
                 "name one, or give --all");
  }
  const bool is_list = request.all || drawn;
  if (is_list && agent == nullptr) {
    return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                 "there is no state here whose keys could be drilled",
                 "name a file: 'keyescrow drill FILE --module SO --agent THUMBPRINT'");
  }
  if (agent != nullptr) RETURN_IF_ERROR(agent->store().CheckWritable());
  std::vector<Target> targets;
  if (request.all) {
    ASSIGN_OR_RETURN(targets, AllTargets(*agent, request));
  } else if (drawn) {
    targets = DrawnTargets(*challenge);
  } else {
    Target& target = targets.emplace_back();
    target.name_or_file = request.name_or_file;
    if (!request.via.empty()) target.path_ids = {request.via};
  }
  // Officers are waited for where their path was named: who drills every path does not call them.
  CeremonyDesk* const desk = secrets.Desk();
  if (desk != nullptr) desk->SetWaits(!is_list && !request.via.empty());
  RETURN_IF_ERROR(
      secrets.MayAsk([&] { return TokensOfTargets(agent, request, targets, challenge); }));
  Driller driller(environment, agent, request, challenge, secrets, progress);
  RETURN_IF_ERROR(driller.DrillAll(targets, is_list));
  RETURN_IF_ERROR(driller.AnswerNonces());
  return driller.Take();
}

}  // namespace keyescrow::agent
