#include "agent/usecases/backup.h"

#include <sys/stat.h>

#include <algorithm>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/backup_batch.h"
#include "agent/usecases/backup_plan.h"
#include "agent/usecases/ceremony.h"
#include "agent/usecases/declared_sink.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/path_set.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/rotation_backup.h"
#include "agent/usecases/token_names.h"
#include "agent/usecases/written_key.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {
namespace {

using envelope::PathOption;

Error PathsMissing(const std::string& key_name) {
  return Error(ErrorCode::kUsage, Action::kFixInput, "no recovery path is named for " + key_name,
               "add --path 'password & token:NAME', or declare paths in agent.toml");
}

}  // namespace

Result<std::vector<PathOption>> ChoosePaths(Agent& agent, const std::string& key_name,
                                            const std::vector<std::string>& given) {
  const AgentConfig& config = *agent.environment().config;
  const DeclaredKey* declared = given.empty() ? config.FindKey(key_name) : nullptr;
  const std::vector<std::string>* texts = &given;
  if (texts->empty() && declared != nullptr) texts = &declared->paths;
  if (texts->empty()) {
    ASSIGN_OR_RETURN(auto planned, PlannedPaths(agent, key_name));
    if (!planned.empty()) {
      RETURN_IF_ERROR(CheckPaths(agent, planned));
      return planned;
    }
  }
  if (texts->empty()) texts = &config.default_paths;
  if (texts->empty()) {
    ASSIGN_OR_RETURN(auto kept, PathsInUse(agent, key_name));
    if (kept.empty()) return PathsMissing(key_name);
    RETURN_IF_ERROR(CheckPaths(agent, kept));
    return kept;
  }
  ASSIGN_OR_RETURN(auto paths, envelope::ParsePathOptions(*texts));
  RETURN_IF_ERROR(CheckPaths(agent, paths));
  return paths;
}

void AddEscrow(const EscrowEntry& entry, std::vector<audit::Event>& events, store::Change& change) {
  const envelope::Header& header = entry.read_back->header();
  store::EnvelopeRecord record;
  record.key_name = header.key_name;
  record.key_version = header.key_version;
  record.revision = header.revision;
  record.envelope_id = header.envelope_id;
  record.sha256 = entry.sealed->hash;
  record.created = entry.fingerprint.time;
  record.bytes = ToBytes(AsBytes(entry.sealed->file));
  record.path_set = PathSetDigest(header);
  record.event_index = events.size();
  change.envelopes.push_back(std::move(record));
  change.fingerprints.push_back(entry.fingerprint);
  audit::Event& created = events.emplace_back();
  created.type = audit::EventType::kEscrowCreated;
  created.key = audit::EventKey{header.key_name, header.key_version};
  created.envelope = audit::EventEnvelope{header.envelope_id, header.revision, entry.sealed->hash};
  created.policy = entry.in_force->Event();
  std::vector<const envelope::PathRecord*> paths;
  for (const envelope::PathRecord& path : header.paths) paths.push_back(&path);
  created.paths = DescribePaths(paths);
  created.reason = header.note.value_or("");
  AddSuccession(entry.succession, header.key_name, header.key_version, events, change);
}

std::string NotRecoverable(const std::vector<PathProof>& paths) {
  for (const PathProof& path : paths) {
    if (!path.portable || !path.expression.starts_with(kRecoveryKeyKind)) continue;
    return "no portable path is proven, and " + path.expression +
           " was not opened lately: prove it with 'keyescrow drill " + path.expression + "'";
  }
  return "no portable path is proven: what would open without this host's tpm has not been seen to "
         "open";
}

bool MayHandOver(const std::vector<PathProof>& paths) {
  const bool portable_wanted = std::ranges::any_of(paths, &PathProof::portable);
  return std::ranges::any_of(paths, [&](const PathProof& proof) {
    return (proof.proven || proof.covered_since) && (proof.portable || !portable_wanted);
  });
}

namespace {

// KeyMaterial: the protected key, and where a generated one still has to go.
struct KeyMaterial {
  SecretBytes key;
  std::unique_ptr<KeyLocation> sink;
  std::unique_ptr<KeyLocation> source;  // where it was read
  std::string source_path;              // of a file, for the warning about its file system
};

Result<KeyMaterial> ObtainKey(Agent& agent, const BackupRequest& request) {
  KeyMaterial material;
  if (request.key != nullptr) {
    ASSIGN_OR_RETURN(material.key, SecretBytes::CopyOf(request.key->Expose()));
    return material;
  }
  if (request.generate_bytes > 0) {
    ASSIGN_OR_RETURN(material.sink, ParseLocation(request.sink, {request.luks_unlock_file}));
    RETURN_IF_ERROR(CheckNotMixed(agent, request.key_name, *material.sink, true));
    RETURN_IF_ERROR(CheckOutsideState(*material.sink, agent.environment().state_dir));
    RETURN_IF_ERROR(material.sink->CheckWritable());
    RETURN_IF_ERROR(material.sink->CheckRoom());
    material.source_path = material.sink->FilePath();
    struct stat status {};
    if (!material.source_path.empty() && lstat(material.source_path.c_str(), &status) == 0) {
      return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
                   material.source_path + " exists: a new key does not replace what is there",
                   "escrow that key with --from, or name a new file with --to");
    }
    ASSIGN_OR_RETURN(material.key,
                     RandomSecret(*agent.environment().random, request.generate_bytes));
    return material;
  }
  std::string source = request.source;
  if (source.empty()) {
    const DeclaredKey* declared = agent.environment().config->FindKey(request.key_name);
    if (declared == nullptr) {
      return Error(ErrorCode::kUsage, Action::kFixInput, "where is the key " + request.key_name,
                   "add --from FILE (or --from -, --from exec:CMD), or declare it with 'key add'");
    }
    source = declared->source;
  }
  ASSIGN_OR_RETURN(material.source, ParseLocation(source, {request.luks_unlock_file}));
  material.source_path = material.source->FilePath();
  RETURN_IF_ERROR(CheckNotMixed(agent, request.key_name, *material.source, false));
  ASSIGN_OR_RETURN(material.key, material.source->Read());
  return material;
}

bool Wanted(const BackupRequest& request, const std::string& path_id) {
  if (request.prove_none) return false;
  return request.prove.empty() ||
         std::find(request.prove.begin(), request.prove.end(), path_id) != request.prove.end();
}

// TokensToProve: those of the paths that are to be reopened.
Result<Secrets::TokenNames> TokensToProve(const BackupRequest& request,
                                          const std::vector<PathOption>& paths) {
  Secrets::TokenNames names;
  for (const PathOption& option : paths) {
    if (Wanted(request, option.id)) names.merge(TokensOf(option.expression));
  }
  return names;
}

// CanProve: the hardware is here and its PIN can be had. The error says why not.
Status CanProve(PathOpener& opener, const envelope::PathRecord& path, std::size_t index,
                Secrets& secrets) {
  RETURN_IF_ERROR(opener.Present(index));
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto token = IdentityOf(factor)) RETURN_IF_ERROR(RequirePin(*token->token, secrets));
  }
  return Ok();
}

// Cover tells what is known of the recovery key that the path goes to.
Status Cover(Agent& agent, const store::EnvelopeRecord& written, const envelope::PathRecord& path,
             PathProof& proof) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(path.recovery_key->name));
  ASSIGN_OR_RETURN(const RecoveryKeyState key, DescribeRecoveryKey(row));
  ASSIGN_OR_RETURN(proof.covered_since, CoveredSince(agent, row, written.key_name, path.id));
  proof.portable = key.portable;
  ASSIGN_OR_RETURN(proof.why_not, CoverText(agent, row, proof.covered_since));
  return Ok();
}

// ProvePaths reopens the written bytes by every path whose factors are at hand and compares.
Result<std::vector<PathProof>> ProvePaths(Agent& agent, const BackupRequest& request,
                                          const std::vector<PathOption>& options,
                                          const store::EnvelopeRecord& written,
                                          const SecretBytes& key, Secrets& secrets,
                                          Progress& progress, StretchedPasswords& passwords,
                                          Refusals& refusals) {
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(written.bytes, trust));
  PathOpenOptions open_options;
  open_options.devices = agent.environment().devices;
  open_options.secrets = &secrets;
  open_options.progress = &progress;
  open_options.store = &agent.store();
  open_options.purpose = "to prove " + request.key_name;
  ASSIGN_OR_RETURN(const auto checkpoint, NewestCheckpoint(&agent));
  PathOpener opener(sealed, open_options, passwords);
  CeremonyDesk* const desk = secrets.Desk();
  std::vector<PathProof> proofs;
  std::vector<audit::Event> events;
  store::Change change;
  for (std::size_t index = 0; index < sealed.header().paths.size(); ++index) {
    const envelope::PathRecord& path = sealed.header().paths[index];
    PathProof proof;
    proof.path_id = path.id;
    proof.expression = envelope::FormatPathExpression(options[index].expression);
    proof.portable = !options[index].expression.NeedsTpm();
    if (path.recovery_key) RETURN_IF_ERROR(Cover(agent, written, path, proof));
    if (!Wanted(request, path.id) || (path.recovery_key && request.prove.empty())) {
      if (proof.why_not.empty()) proof.why_not = "not asked for";
      proofs.push_back(std::move(proof));
      continue;
    }
    progress.Step("proving " + path.id);
    // Officers are called for a path that --prove names, not for one of many.
    if (desk != nullptr) desk->SetWaits(!request.prove.empty());
    std::string failure;
    std::optional<audit::EventDrill> drill;
    if (Status possible = CanProve(opener, path, index, secrets); !possible) {
      proof.why_not = possible.error().message();
      refusals.emplace(path.id, possible.error());
    } else if (auto opened = opener.Open(index); !opened) {
      proof.why_not = opened.error().message();
      refusals.emplace(path.id, opened.error());
      if (TellsOfThePath(opened.error())) failure = ErrorCodeName(opened.error().code());
    } else if (!opened->content().EqualsConstantTime(key)) {
      return Error(ErrorCode::kInternal, Action::kReportBug,
                   "the path " + path.id + " gives other bytes than those that were escrowed",
                   "keep the key where it is, and report this");
    } else {
      ASSIGN_OR_RETURN(drill,
                       ProveOpened(sealed, *opened, {checkpoint, std::nullopt, agent.Now()}));
      proof.proven = true;
    }
    if (proof.proven || !failure.empty()) {
      audit::Event event;
      event.type = proof.proven ? audit::EventType::kDrillPassed : audit::EventType::kDrillFailed;
      event.outcome = proof.proven ? audit::Outcome::kSuccess : audit::Outcome::kFailure;
      event.error = failure;
      event.key = audit::EventKey{written.key_name, written.key_version};
      event.envelope = audit::EventEnvelope{written.envelope_id, written.revision, written.sha256};
      event.paths = DescribePaths({&path});
      event.drill = drill;
      events.push_back(std::move(event));
      store::PathOutcome outcome{written.key_name, written.key_version, written.revision, path.id,
                                 agent.Now(),      proof.proven,        failure};
      if (proof.proven) {
        outcome.proven_by = "backup";
        outcome.event_index = events.size() - 1;
      }
      change.path_outcomes.push_back(std::move(outcome));
    }
    proofs.push_back(std::move(proof));
  }
  if (request.rotation && !events.empty() && MayHandOver(proofs)) {
    ASSIGN_OR_RETURN(auto open, agent.store().OpenRotation(written.key_name));
    if (open && open->key_version == written.key_version) {
      open->step = store::RotationStep::kProven;
      open->changed = agent.Now();
      change.rotations.push_back(std::move(*open));
    }
  }
  if (!events.empty()) RETURN_IF_ERROR(agent.journal().Append(std::move(events), change));
  return proofs;
}

// RecordDelivery logs which keyslot of a LUKS volume the key opens now, and what its header is, so
// that `status` sees without a secret when it is gone.
Status RecordDelivery(Agent& agent, const BackupRequest& request, const KeyLocation& sink,
                      BackupResult& result) {
  ASSIGN_OR_RETURN(auto binding, MakeLuksBinding(agent, result.key_name, result.key_version, sink,
                                                 result.keyslot));
  if (!binding) return Ok();
  ASSIGN_OR_RETURN(const auto known, agent.store().LuksBindings(result.key_name));
  for (const store::LuksBindingRecord& older : known) {
    if (older.uuid != binding->uuid || !older.keyslot || !older.keyslot->IsKnown()) continue;
    result.findings.push_back("keyslot " + std::to_string(older.keyslot->number) + " of version " +
                              std::to_string(older.key_version) +
                              " is left as it was: 'cryptsetup luksKillSlot' removes it; "
                              "'keyescrow rotate' replaces a keyslot by itself");
  }
  audit::Event event;
  event.type = audit::EventType::kKeyDelivered;
  event.key = audit::EventKey{result.key_name, result.key_version};
  event.reason = request.sink + ", keyslot " + std::to_string(result.keyslot.value_or(0)) +
                 ", UUID " + binding->uuid;
  store::Change change;
  change.luks_bindings.push_back(std::move(*binding));
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return Ok();
}

// Deliver hands a generated key over, as the last step: what is in use can be recovered. A path
// that opens elsewhere must have been proven, or any path where none of that kind was asked for.
Status Deliver(Agent& agent, const BackupRequest& request, const KeyMaterial& material,
               BackupResult& result) {
  PausePoint("proven");
  result.delivered = false;
  const bool portable_wanted = std::ranges::any_of(result.paths, &PathProof::portable);
  const std::string restore =
      "'keyescrow restore " + result.key_name + " --to " + request.sink + "'";
  if (!MayHandOver(result.paths)) {
    result.findings.push_back(
        std::string("the key was made and escrowed, and not handed over: no path ") +
        (portable_wanted ? "that opens without this host's tpm " : "") +
        "was proven; prove one and hand it over with " + restore);
    return Ok();
  }
  constexpr std::size_t kNeedsNoStretching = 32;
  WriteOptions options;
  options.random_key = material.key.size() >= kNeedsNoStretching;
  auto delivered = material.sink->Write(material.key, options);
  if (!delivered) {
    return std::move(delivered).error().WithHint(
        "the key is escrowed as version " + std::to_string(result.key_version) +
        ": when the cause is gone, hand it over with " + restore);
  }
  if (std::string open = OpenToOthers(material.sink->FilePath()); !open.empty()) {
    result.findings.push_back(std::move(open));
  }
  result.delivered = true;
  result.keyslot = delivered->keyslot;
  return RecordDelivery(agent, request, *material.sink, result);
}

Status CheckRequest(const BackupRequest& request, const std::vector<PathOption>& paths) {
  if (!envelope::IsNote(request.note)) {
    return Error(
        ErrorCode::kUsage, Action::kFixInput,
        "a note has at most 1024 printable ASCII characters without quotes and backslashes",
        "shorten or rephrase --note");
  }
  for (const std::string& id : request.prove) {
    const bool known = std::any_of(paths.begin(), paths.end(),
                                   [&](const PathOption& option) { return option.id == id; });
    if (!known) {
      return Error(ErrorCode::kPathNotFound, Action::kFixInput,
                   "--prove names the path \"" + id + "\", which is not made",
                   "name one of the paths' ids");
    }
  }
  return Ok();
}

}  // namespace

Result<BackupResult> BackupAfter(Agent& agent, const BackupRequest& request,
                                 const envelope::Header* in_use, Refusals& refusals,
                                 Secrets& secrets, Progress& progress) {
  RETURN_IF_ERROR(CheckKeyName(request.key_name));
  ASSIGN_OR_RETURN(const std::vector<PathOption> paths,
                   ChoosePaths(agent, request.key_name, request.paths));
  ASSIGN_OR_RETURN(const PathKdfs kdfs, in_use != nullptr
                                            ? KdfsAfter(agent, *in_use, request.kdf)
                                            : ChooseKdfs(agent, request.key_name, request.kdf));
  ASSIGN_OR_RETURN(const auto reported, CheckPlan(agent, request.key_name, paths, kdfs));
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  RETURN_IF_ERROR(CheckRequest(request, paths));
  RETURN_IF_ERROR(secrets.MayAsk([&] { return TokensToProve(request, paths); }));
  std::unique_ptr<KeyLocation> output;
  if (!request.output.empty()) {
    ASSIGN_OR_RETURN(output, ParseLocation(request.output));
    RETURN_IF_ERROR(CheckPortablePlace(agent, *output));
    RETURN_IF_ERROR(output->CheckWritable());
  }
  RETURN_IF_ERROR(agent.store().CheckWritable());
  ASSIGN_OR_RETURN(const KeyMaterial material, ObtainKey(agent, request));
  PausePoint("key-read");

  EnrollContext context;
  context.agent = &agent;
  context.secrets = &secrets;
  context.progress = &progress;
  context.kdfs = kdfs;
  StretchedPasswords passwords;
  context.passwords = &passwords;
  const std::int64_t now = agent.Now();
  envelope::EnvelopeDraft& draft = context.draft;
  ASSIGN_OR_RETURN(draft.envelope_id, envelope::NewEnvelopeId(*agent.environment().random));
  draft.policy = in_force->policy.name;
  draft.key_name = request.key_name;
  ASSIGN_OR_RETURN(draft.key_version, NextKeyVersion(agent, request.key_name));
  draft.host = agent.identity().host;
  draft.created = FormatUtc(now);
  draft.updated = draft.created;
  if (!request.note.empty()) draft.note = request.note;
  const bool any_password = std::any_of(paths.begin(), paths.end(), [](const PathOption& option) {
    return option.expression.Has(envelope::FactorKind::kPassword);
  });
  ASSIGN_OR_RETURN(const auto enrolled, EnrollPaths(context, paths));
  PausePoint("factors-made");
  if (any_password) {
    progress.Pause();
    RETURN_IF_ERROR(secrets.ConfirmLoss());
  }
  progress.Step("sealing and signing");
  ASSIGN_OR_RETURN(
      const envelope::SealedBytes sealed,
      envelope::Seal(draft, enrolled, material.key, agent.signer(), *agent.environment().random));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(const auto read_back,
                   envelope::SealedEnvelope::Read(AsBytes(sealed.file), trust));
  ASSIGN_OR_RETURN(
      const Fingerprinter fingerprinter,
      Fingerprinter::Ensure(agent.environment().state_dir, *agent.environment().random));
  store::FingerprintRecord fingerprint = MakeFingerprint(
      agent, fingerprinter, draft.key_name, draft.key_version, material.key, material.source_path);
  fingerprint.time = now;
  std::optional<store::LuksBindingRecord> volume;
  if (material.source != nullptr) {
    ASSIGN_OR_RETURN(volume, MakeLuksBinding(agent, draft.key_name, draft.key_version,
                                             *material.source, std::nullopt));
  }
  ASSIGN_OR_RETURN(const Succession succession,
                   FindSuccession(agent, draft.key_name, draft.key_version, material.key,
                                  fingerprinter, request.rotation));
  PausePoint("before-commit");
  std::vector<audit::Event> events;
  store::Change change;
  AddEscrow({&sealed, &read_back, in_force, fingerprint, succession}, events, change);
  if (volume) change.luks_bindings.push_back(*volume);
  if (output != nullptr) events.push_back(PortableFileEvent(change.envelopes.front()));
  auto committed = agent.journal().Append(std::move(events), change);
  if (!committed && committed.error().code() == ErrorCode::kAlreadyExists) {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 "another command wrote a version of " + draft.key_name + " in this moment",
                 "run the command again");
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, std::move(committed));
  PausePoint("committed");

  BackupResult result;
  result.findings = FindingTexts(reported);
  // That a key which was made just now is another one is no news.
  const bool is_news =
      request.generate_bytes == 0 || (!succession.other_bytes && !succession.not_compared);
  if (!succession.finding.empty() && is_news) {
    result.findings.push_back(succession.finding);
  }
  result.key_name = draft.key_name;
  result.key_version = draft.key_version;
  result.envelope_id = draft.envelope_id;
  result.envelope_hash = sealed.hash;
  result.thumbprint = read_back.header().agent;
  result.log_seq = receipt.seq;
  result.p256_signed = receipt.p256_signed;
  ASSIGN_OR_RETURN(const store::EnvelopeRecord written,
                   agent.store().FindEnvelope(draft.key_name, draft.key_version));
  ASSIGN_OR_RETURN(result.paths, ProvePaths(agent, request, paths, written, material.key, secrets,
                                            progress, passwords, refusals));
  for (const PathProof& proof : result.paths) {
    result.portable_proven = result.portable_proven || (proof.portable && proof.proven);
    result.covered = result.covered || (proof.portable && proof.covered_since);
  }
  if (output != nullptr) {
    auto copied = WritePortable(agent, written, request.output);
    if (!copied) return CopyFailed(std::move(copied).error(), request, result);
    result.receipt = *std::move(copied);
    result.output = output->Describe();
    if (OnOneFileSystem(material.source_path, output->FilePath())) {
      result.findings.push_back(
          "the portable file lies on the key's own file system: copy it to "
          "another disk");
    }
  }
  if (material.sink != nullptr) RETURN_IF_ERROR(Deliver(agent, request, material, result));
  if (!result.p256_signed) {
    result.findings.push_back(
        "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
  }
  // A rotation looks at more before it says so.
  if (!result.Recoverable() && !request.rotation) {
    result.findings.push_back(NotRecoverable(result.paths));
  }
  return result;
}

Result<BackupResult> Backup(Agent& agent, const BackupRequest& request, Secrets& secrets,
                            Progress& progress) {
  Refusals refusals;
  return BackupAfter(agent, request, nullptr, refusals, secrets, progress);
}

}  // namespace keyescrow::agent
