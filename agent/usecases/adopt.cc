#include "agent/usecases/adopt.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/usecases/backup_plan.h"
#include "agent/usecases/edit_plan.h"
#include "agent/usecases/edit_secrets.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/path_choice.h"
#include "agent/usecases/path_set.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/prove_written.h"
#include "agent/usecases/rotation_record.h"
#include "agent/usecases/token_names.h"
#include "envelope/base/pause_point.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

using envelope::PathOption;
using envelope::SealedEnvelope;

// Place: the version that the key gets, and the one in use before.
struct Place {
  std::uint32_t version = 0;
  std::optional<std::uint32_t> in_use;
};

// PlaceHere finds it. Errors: kAlreadyExists where the name is that of another key.
Result<Place> PlaceHere(Agent& agent, const std::string& name, const envelope::Header& origin) {
  ASSIGN_OR_RETURN(const auto open, agent.store().OpenRotation(name));
  if (open) return RotationIsOpen(*open);
  ASSIGN_OR_RETURN(const std::uint32_t highest, agent.store().HighestVersion(name));
  const auto newest = agent.store().FindEnvelope(name, std::nullopt);
  if (!newest) {
    const ErrorCode code = newest.error().code();
    if (code != ErrorCode::kKeyNotFound && code != ErrorCode::kNotFound) return newest.error();
    return Place{highest + 1, std::nullopt};
  }
  if (newest->envelope_id == origin.envelope_id) {
    if (origin.agent != agent.identity().Thumbprint()) {
      return Place{highest + 1, newest->key_version};
    }
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 name + " is a key of this agent, and escrowed here",
                 "change its paths with 'keyescrow path add " + name + "'");
  }
  return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
               fmt::format("a key named {} is escrowed here already, as version {}", name,
                           newest->key_version),
               "adopt this one under another name with --as NAME; if it is the same key, "
               "'keyescrow path add " +
                   name + "' gives it paths");
}

void RecordFailure(Agent& agent, const SealedEnvelope& sealed, const envelope::PathRecord* path,
                   const Error& error, Progress& progress) {
  const envelope::Header& header = sealed.header();
  audit::Event event;
  event.type = audit::EventType::kEscrowFailed;
  event.outcome = audit::Outcome::kFailure;
  event.error = ErrorCodeName(error.code());
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  event.reason = "was to be adopted from the host " + header.host;
  if (path != nullptr) event.paths = DescribePaths({path});
  if (auto recorded = agent.journal().Append(std::move(event)); !recorded) {
    progress.Warn("the failure could not be logged: " + recorded.error().message());
  }
}

void AddFindings(BackupResult& result) {
  for (const PathProof& proof : result.paths) {
    result.portable_proven = result.portable_proven || (proof.portable && proof.proven);
  }
  if (!result.p256_signed) {
    result.findings.push_back(
        "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
  }
  if (!result.portable_proven) {
    result.findings.push_back(
        "no portable path is proven: what would open without this host's tpm has not been seen to "
        "open");
  }
}

// Prove reopens `next`; what it learns goes to `events` and `change`.
Status Prove(const TrialContext& context, const std::vector<PathOption>& options,
             PathOpener& opener, Progress& progress, std::vector<audit::Event>& events,
             store::Change& change, BackupResult& result) {
  for (std::size_t index = 0; index < options.size(); ++index) {
    PathProof& proof = result.paths.emplace_back();
    proof.path_id = options[index].id;
    proof.expression = envelope::FormatPathExpression(options[index].expression);
    proof.portable = !options[index].expression.NeedsTpm();
    progress.Step("proving " + proof.path_id);
    ASSIGN_OR_RETURN(const PathTrial trial, TryPath(context, opener, index));
    if (trial.drill) {
      RecordTrial(context, index, *trial.drill, "backup", events, change);
      proof.proven = true;
      continue;
    }
    proof.why_not = trial.error->message();
    if (trial.NotAtHand()) continue;
    return Error(*trial.error)
        .WithContext("the path " + proof.path_id +
                     " does not open what was made, and nothing was escrowed");
  }
  return Ok();
}

}  // namespace

Result<AdoptResult> Adopt(Agent& agent, const AdoptRequest& request, Secrets& secrets,
                          Progress& progress) {
  ASSIGN_OR_RETURN(const EnvelopeSource source,
                   FindEnvelope(&agent, request.name_or_file, std::nullopt));
  ASSIGN_OR_RETURN(const auto origin_trust, TrustFor(&agent, request.trusted_agent, false));
  ASSIGN_OR_RETURN(const SealedEnvelope origin, SealedEnvelope::Read(source.bytes, origin_trust));
  const envelope::Header& old = origin.header();
  // A host that was rebuilt has its old name and another agent: what the old one signed is adopted.
  if (old.agent == agent.identity().Thumbprint()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 old.key_name +
                     " is a key of this agent: under another name it would follow other "
                     "rules",
                 "change its paths with 'keyescrow path', or restore it");
  }
  const std::string name = request.as.empty() ? old.key_name : request.as;
  RETURN_IF_ERROR(CheckKeyName(name));
  const std::string note =
      request.note.empty()
          ? fmt::format("adopted from {}: {} version {}", old.host, old.key_name, old.key_version)
          : request.note;
  if (!envelope::IsNote(note)) {
    return Error(
        ErrorCode::kUsage, Action::kFixInput,
        "a note has at most 1024 printable ASCII characters without quotes and backslashes",
        "shorten or rephrase --note");
  }
  ASSIGN_OR_RETURN(const Place place, PlaceHere(agent, name, old));
  const std::uint32_t version = place.version;
  ASSIGN_OR_RETURN(const std::vector<PathOption> paths, envelope::ParsePathOptions(request.paths));
  RETURN_IF_ERROR(CheckPaths(agent, paths));
  EditSecrets own_secrets(secrets);
  StretchedPasswords passwords;
  EnrollContext context;
  context.agent = &agent;
  context.secrets = &own_secrets;
  context.progress = &progress;
  context.passwords = &passwords;
  ASSIGN_OR_RETURN(context.kdfs, ChooseKdfs(agent, name, request.kdf));
  auto allowed = CheckRelease(agent, old, request.reason, request.ticket);
  if (!allowed) {
    RecordFailure(agent, origin, nullptr, allowed.error(), progress);
    return std::move(allowed).error();
  }
  std::vector<Finding> reported = std::move(*allowed);
  for (const std::string& under : {old.key_name, name}) {
    ASSIGN_OR_RETURN(auto plan, CheckPlan(agent, under, paths, context.kdfs));
    for (Finding& finding : plan) {
      const auto is_told = [&](const Finding& told) { return told.what == finding.what; };
      if (std::ranges::none_of(reported, is_told)) reported.push_back(std::move(finding));
    }
    if (name == old.key_name) break;
  }
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  RETURN_IF_ERROR(agent.store().CheckWritable());

  RETURN_IF_ERROR(own_secrets.MayAsk([&]() -> Result<Secrets::TokenNames> {
    ASSIGN_OR_RETURN(Secrets::TokenNames names, TokensToOpen(old, request.via, &agent.store()));
    if (!names.empty()) return names;
    for (const PathOption& option : paths) names.merge(TokensOf(option.expression));
    return names;
  }));
  TokenSessions tokens({agent.environment().devices, &own_secrets.Pins(), &agent.store(),
                        request.module, request.use_last_try});
  PathOpenOptions options;
  options.devices = agent.environment().devices;
  options.secrets = &own_secrets;
  options.progress = &progress;
  options.store = &agent.store();
  options.module = request.module;
  options.purpose = "to adopt " + old.key_name + " of the host " + old.host;
  options.use_last_try = request.use_last_try;
  options.tokens = &tokens;
  PathOpener opener(origin, options, passwords);
  const envelope::PathRecord* tried = nullptr;
  const auto opened = OpenByChoice(origin, opener, request.via, own_secrets, progress, tried);
  if (!opened) {
    RecordFailure(agent, origin, tried, opened.error(), progress);
    return opened.error();
  }
  PausePoint("content-open");
  const envelope::PathRecord& via = old.paths[opened->index];
  const SecretBytes* typed = own_secrets.Opened(PasswordOf(via) != nullptr);
  const bool via_hardware = via.factors.size() > 1;
  context.check_password = [&](const SecretBytes& password, const PathOption& option) -> Status {
    if (typed == nullptr || via_hardware == option.expression.HasHardware()) return Ok();
    ASSIGN_OR_RETURN(const SecretBytes other, envelope::NormalizePassword(*typed));
    if (!other.EqualsConstantTime(password)) return Ok();
    return via_hardware ? PasswordReused(option.id, via.id) : PasswordReused(via.id, option.id);
  };
  const SecretBytes& key = opened->envelope.content();

  const std::int64_t now = agent.Now();
  envelope::EnvelopeDraft& draft = context.draft;
  ASSIGN_OR_RETURN(draft.envelope_id, envelope::NewEnvelopeId(*agent.environment().random));
  draft.policy = in_force->policy.name;
  draft.key_name = name;
  draft.key_version = version;
  draft.host = agent.identity().host;
  draft.created = FormatUtc(now);
  draft.updated = draft.created;
  draft.note = note;
  ASSIGN_OR_RETURN(const auto enrolled, EnrollPaths(context, paths));
  const bool any_password = std::ranges::any_of(paths, [](const PathOption& option) {
    return option.expression.Has(envelope::FactorKind::kPassword);
  });
  if (any_password) {
    progress.Pause();
    RETURN_IF_ERROR(own_secrets.ConfirmLoss());
  }
  progress.Step("sealing and signing");
  ASSIGN_OR_RETURN(
      const envelope::SealedBytes made,
      envelope::Seal(draft, enrolled, key, agent.signer(), *agent.environment().random));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(const SealedEnvelope next, SealedEnvelope::Read(AsBytes(made.file), trust));

  AdoptResult result;
  result.from_host = old.host;
  result.from_name = old.key_name;
  result.from_version = old.key_version;
  result.from_agent = old.agent;
  result.via = via.id;
  BackupResult& escrowed = result.escrowed;
  escrowed.key_name = name;
  escrowed.key_version = version;
  escrowed.envelope_id = draft.envelope_id;
  escrowed.envelope_hash = made.hash;
  escrowed.thumbprint = next.header().agent;
  escrowed.findings = FindingTexts(reported);

  store::Change change;
  store::EnvelopeRecord record;
  record.key_name = name;
  record.key_version = version;
  record.revision = 1;
  record.envelope_id = draft.envelope_id;
  record.sha256 = made.hash;
  record.created = now;
  record.bytes = ToBytes(AsBytes(made.file));
  record.path_set = PathSetDigest(next.header());
  change.envelopes.push_back(std::move(record));
  ASSIGN_OR_RETURN(
      const Fingerprinter fingerprinter,
      Fingerprinter::Ensure(agent.environment().state_dir, *agent.environment().random));
  change.fingerprints.push_back(MakeFingerprint(agent, fingerprinter, name, version, key, ""));
  change.fingerprints.back().time = now;
  std::vector<audit::Event> events;
  audit::Event& created = events.emplace_back();
  created.type = audit::EventType::kEscrowCreated;
  created.key = audit::EventKey{name, version};
  created.envelope = audit::EventEnvelope{draft.envelope_id, 1, made.hash};
  created.policy = in_force->Event();
  std::vector<const envelope::PathRecord*> all_paths;
  for (const envelope::PathRecord& path : next.header().paths) all_paths.push_back(&path);
  created.paths = DescribePaths(all_paths);
  created.reason = fmt::format("adopted from host {}, {} version {}, envelope {}, signed by {}",
                               old.host, old.key_name, old.key_version, old.envelope_id, old.agent);
  if (!request.reason.empty()) created.reason += ": " + request.reason;
  created.ticket = request.ticket;
  change.in_use_seen.push_back({name, place.in_use});
  if (place.in_use) {
    audit::Event& superseded = events.emplace_back();
    superseded.type = audit::EventType::kEscrowSuperseded;
    superseded.key = audit::EventKey{name, *place.in_use};
  }
  TrialContext trial;
  trial.agent = &agent;
  trial.sealed = &next;
  trial.content = &key;
  trial.secrets = &own_secrets;
  ASSIGN_OR_RETURN(trial.checkpoint, NewestCheckpoint(&agent));
  PathOpener prover(next, options, passwords);
  RETURN_IF_ERROR(Prove(trial, paths, prover, progress, events, change, escrowed));
  tokens.Finish();
  PausePoint("before-commit");
  auto committed = agent.journal().Append(std::move(events), change);
  if (!committed && committed.error().code() == ErrorCode::kAlreadyExists) {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 "another command escrowed " + name + " in this moment", "run the command again");
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, std::move(committed));
  escrowed.log_seq = receipt.seq;
  escrowed.p256_signed = receipt.p256_signed;
  AddFindings(escrowed);
  return result;
}

}  // namespace keyescrow::agent
