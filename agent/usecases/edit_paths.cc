#include "agent/usecases/edit_paths.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/usecases/edit_guard.h"
#include "agent/usecases/edit_secrets.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/path_choice.h"
#include "agent/usecases/path_set.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/prove_written.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/token_names.h"
#include "envelope/base/base64url.h"
#include "envelope/base/pause_point.h"
#include "envelope/edit.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

using envelope::PathOption;
using envelope::PathRecord;
using envelope::SealedEnvelope;

// EnvelopeToEdit: the newest revision of a version, read and verified.
struct EnvelopeToEdit {
  store::EnvelopeRecord record;
  SealedEnvelope sealed;
};

Result<EnvelopeToEdit> FindToEdit(Agent& agent, const EditRequest& request) {
  if (!envelope::IsKeyName(request.key_name)) {
    return Error(ErrorCode::kInvalidName, Action::kFixInput,
                 "\"" + request.key_name + "\" is not a key name",
                 "name a key that is escrowed here: 'keyescrow list' shows them");
  }
  if (request.version && *request.version > INT32_MAX) {
    return Error(ErrorCode::kVersionNotFound, Action::kFixInput,
                 request.key_name + " has no version " + std::to_string(*request.version),
                 "'show " + request.key_name + "' tells the newest version");
  }
  ASSIGN_OR_RETURN(store::EnvelopeRecord record,
                   agent.store().FindEnvelope(
                       request.key_name,
                       request.version ? std::optional(static_cast<std::uint32_t>(*request.version))
                                       : std::nullopt));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(SealedEnvelope sealed, SealedEnvelope::Read(record.bytes, trust));
  if (record.sha256 != sealed.hash()) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store's envelope is not the one that its row and the log name",
                 "run 'keyescrow verify', and compare the store with a copy");
  }
  const std::string& host = sealed.header().host;
  if (host != agent.identity().host) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 request.key_name + " is a key of the host " + host + ", and this is " +
                     agent.identity().host,
                 "give it paths of this host with 'keyescrow adopt " + request.key_name + "'");
  }
  return EnvelopeToEdit{std::move(record), std::move(sealed)};
}

// AddFindings says what is not proven after the edit.
void AddFindings(EditResult& result) {
  std::string before;
  for (const EditedPath& path : result.paths) {
    result.portable_proven = result.portable_proven || (path.portable && path.proven);
    if (path.portable && path.proven_before) before = path.path_id;
    if (path.change == PathChange::kKept || path.proven) continue;
    result.findings.push_back("the path " + path.path_id +
                              " was made and not proven: " + path.why_not);
  }
  if (!result.p256_signed) {
    result.findings.push_back(
        "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
  }
  if (result.portable_proven) return;
  result.findings.push_back(
      before.empty()
          ? "no portable path is proven: what would open without this host's tpm has not been seen "
            "to open"
          : "no portable path is proven since this edit: prove it with 'keyescrow drill " +
                result.key_name + " --via " + before + "'");
}

class Editor {
 public:
  Editor(Agent& agent, const EditRequest& request, Secrets& secrets, Progress& progress)
      : agent_(agent),
        request_(request),
        secrets_(secrets),
        progress_(progress),
        tokens_({agent.environment().devices, &secrets_.Pins(), &agent.store(), request.module,
                 request.use_last_try}) {}

  Result<EditResult> Run();

 private:
  PathOpenOptions OpenOptions();
  Result<OpenedBy> Open(const SealedEnvelope& sealed);
  // RecordFailure logs that an edit found no path that opens.
  void RecordFailure(const SealedEnvelope& sealed, const PathRecord* path, const Error& error);
  Result<std::vector<envelope::NextPath>> MakePaths(const SealedEnvelope& sealed,
                                                    const EditPlan& plan, const OpenedBy& opened);
  // CheckPassword refuses a new password that is the old one, or that a weaker path has.
  Status CheckPassword(const SealedEnvelope& sealed, const EditPlan& plan, const OpenedBy& opened,
                       const SecretBytes& password, const PathOption& option);
  // Prove reopens `next`; what it learns goes to `events` and `change`.
  Status Prove(const SealedEnvelope& next, const EditPlan& plan, const OpenedBy& opened,
               std::vector<audit::Event>& events, store::Change& change, EditResult& result);
  Status AddPathEvents(const SealedEnvelope& old, const SealedEnvelope& next, const EditPlan& plan,
                       std::vector<audit::Event>& events, store::Change& change);
  std::string Reason(const SealedEnvelope& old, const EditPlan& plan, const std::string& via) const;
  Result<AppendReceipt> Commit(const EditGuard& guard, std::vector<audit::Event> events,
                               store::Change& change);
  // FindProvenBefore fills in what was proven before; a removal that leaves no portable path that
  // is, and takes one that was, is refused. Errors: kPathForbidden.
  Status FindProvenBefore(const SealedEnvelope& old, const EditPlan& plan, EditResult& result);

  Agent& agent_;
  const EditRequest& request_;
  EditSecrets secrets_;
  Progress& progress_;
  TokenSessions tokens_;
  StretchedPasswords passwords_;
};

PathOpenOptions Editor::OpenOptions() {
  PathOpenOptions options;
  options.devices = agent_.environment().devices;
  options.secrets = &secrets_;
  options.progress = &progress_;
  options.store = &agent_.store();
  options.module = request_.module;
  options.purpose = "to change the paths of " + request_.key_name;
  options.use_last_try = request_.use_last_try;
  options.tokens = &tokens_;
  return options;
}

void Editor::RecordFailure(const SealedEnvelope& sealed, const PathRecord* path,
                           const Error& error) {
  const envelope::Header& header = sealed.header();
  audit::Event event;
  event.type = audit::EventType::kEscrowFailed;
  event.outcome = audit::Outcome::kFailure;
  event.error = ErrorCodeName(error.code());
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  event.reason = "paths were to be changed";
  store::Change change;
  if (path != nullptr) {
    event.paths = DescribePaths({path});
    if (TellsOfThePath(error) && IsOfThisHost(agent_, *path)) {
      change.path_outcomes.push_back({header.key_name, header.key_version, header.revision,
                                      path->id, agent_.Now(), false, event.error});
    }
  }
  if (auto recorded = agent_.journal().Append(std::move(event), change); !recorded) {
    progress_.Warn("the failure could not be logged: " + recorded.error().message());
  }
}

Result<OpenedBy> Editor::Open(const SealedEnvelope& sealed) {
  PathOpener opener(sealed, OpenOptions(), passwords_);
  const PathRecord* tried = nullptr;
  auto opened = OpenByChoice(sealed, opener, request_.via, secrets_, progress_, tried);
  if (!opened) RecordFailure(sealed, tried, opened.error());
  return opened;
}

Status Editor::CheckPassword(const SealedEnvelope& sealed, const EditPlan& plan,
                             const OpenedBy& opened, const SecretBytes& password,
                             const PathOption& option) {
  const PathRecord& via = sealed.header().paths[opened.index];
  const auto* via_password = PasswordOf(via);
  if (via_password != nullptr) {
    ASSIGN_OR_RETURN(const SecretBytes old, envelope::NormalizePassword(*secrets_.Opened(true)));
    const PlannedPath* made = plan.Find(option.id);
    const PlannedPath* kept = plan.Find(via.id);
    const bool same = old.EqualsConstantTime(password);
    if (same && made->change == PathChange::kPasswordChanged &&
        SamePassword(*via_password, *PasswordOf(sealed.header().paths[made->old_index]))) {
      return Error(ErrorCode::kPasswordWeak, Action::kFixInput,
                   "the new password of the path " + option.id + " is its old one",
                   "give another one with --new-password-file FILE; nothing was changed");
    }
    if (same && kept != nullptr && kept->change == PathChange::kKept) {
      // By the record: a recovery key's factors stand in its path, and not in the expression.
      const bool hardware = via.factors.size() > 1;
      if (hardware != option.expression.HasHardware()) {
        return hardware ? PasswordReused(option.id, via.id) : PasswordReused(via.id, option.id);
      }
    }
  }
  if (!option.expression.HasHardware()) return Ok();
  // A path that a password alone opens is asked whether it is this one.
  for (const PlannedPath& kept : plan.paths) {
    const PathRecord& path = sealed.header().paths[kept.old_index];
    if (kept.change != PathChange::kKept || kept.old_index == opened.index || path.recovery_key ||
        path.factors.size() != 1 || PasswordOf(path) == nullptr) {
      continue;
    }
    progress_.Step("comparing with the password of " + path.id);
    ASSIGN_OR_RETURN(const SecretBytes* stretched, passwords_.Stretch(password, *PasswordOf(path)));
    const SecretBytes* const secrets[] = {stretched};
    if (sealed.Open(kept.old_index, secrets)) return PasswordReused(path.id, option.id);
  }
  return Ok();
}

Result<std::vector<envelope::NextPath>> Editor::MakePaths(const SealedEnvelope& sealed,
                                                          const EditPlan& plan,
                                                          const OpenedBy& opened) {
  const envelope::Header& header = sealed.header();
  EnrollContext context;
  context.agent = &agent_;
  context.secrets = &secrets_;
  context.progress = &progress_;
  context.passwords = &passwords_;
  context.draft.envelope_id = header.envelope_id;
  context.draft.policy = header.policy;
  context.draft.key_name = header.key_name;
  context.draft.key_version = header.key_version;
  context.draft.host = header.host;
  context.kdfs = plan.kdfs;
  context.check_password = [&](const SecretBytes& password, const PathOption& option) {
    return CheckPassword(sealed, plan, opened, password, option);
  };
  std::vector<PathOption> options;
  bool any_password = false;
  for (const PlannedPath& path : plan.paths) {
    if (path.change == PathChange::kKept) continue;
    if (path.change == PathChange::kPasswordChanged) {
      context.remade.push_back(&header.paths[path.old_index]);
    }
    any_password = any_password || path.option.expression.Has(envelope::FactorKind::kPassword);
    options.push_back(path.option);
  }
  ASSIGN_OR_RETURN(auto enrolled, EnrollPaths(context, options));
  PausePoint("factors-made");
  if (any_password) {
    progress_.Pause();
    RETURN_IF_ERROR(secrets_.ConfirmLoss());
  }
  std::vector<envelope::NextPath> paths;
  std::size_t next = 0;
  for (const PlannedPath& path : plan.paths) {
    if (path.change == PathChange::kKept) {
      paths.emplace_back(envelope::KeptPath{path.old_index});
    } else {
      paths.emplace_back(std::move(enrolled.at(next++)));
    }
  }
  return paths;
}

Status Editor::Prove(const SealedEnvelope& next, const EditPlan& plan, const OpenedBy& opened,
                     std::vector<audit::Event>& events, store::Change& change, EditResult& result) {
  TrialContext context;
  context.agent = &agent_;
  context.sealed = &next;
  context.content = &opened.envelope.content();
  context.secrets = &secrets_;
  ASSIGN_OR_RETURN(context.checkpoint, NewestCheckpoint(&agent_));
  PathOpener opener(next, OpenOptions(), passwords_);
  for (std::size_t index = 0; index < plan.paths.size(); ++index) {
    const PlannedPath& planned = plan.paths[index];
    const PathRecord& path = next.header().paths[index];
    EditedPath& edited = result.paths.emplace_back();
    edited.path_id = path.id;
    edited.expression = PathExpressionText(path);
    edited.portable = !planned.option.expression.NeedsTpm();
    edited.change = planned.change;
    if (PasswordOf(path) != nullptr && !secrets_.HasPasswordFor(path.id)) {
      edited.why_not = "its password was not asked for";
      continue;
    }
    progress_.Step("proving " + path.id);
    ASSIGN_OR_RETURN(const PathTrial trial, TryPath(context, opener, index));
    if (trial.drill) {
      RecordTrial(context, index, *trial.drill, "edit", events, change);
      edited.proven = true;
      continue;
    }
    edited.why_not = trial.error->message();
    if (planned.change == PathChange::kKept || trial.NotAtHand()) continue;
    return Error(*trial.error)
        .WithContext("the path " + path.id +
                     " does not open what was made, and nothing was changed");
  }
  return Ok();
}

std::string Editor::Reason(const SealedEnvelope& old, const EditPlan& plan,
                           const std::string& via) const {
  std::string added;
  std::string changed;
  std::string removed;
  const auto join = [](std::string& list, const std::string& id) {
    list += (list.empty() ? "" : ", ") + id;
  };
  for (const PlannedPath& path : plan.paths) {
    if (path.change == PathChange::kAdded) join(added, path.option.id);
    if (path.change == PathChange::kPasswordChanged) join(changed, path.option.id);
  }
  for (const std::size_t index : plan.removed) join(removed, old.header().paths[index].id);
  std::string reason = "opened by " + via;
  if (!added.empty()) reason += "; added " + added;
  if (!removed.empty()) reason += "; removed " + removed;
  if (!changed.empty()) reason += "; password changed of " + changed;
  return reason;
}

Status Editor::AddPathEvents(const SealedEnvelope& old, const SealedEnvelope& next,
                             const EditPlan& plan, std::vector<audit::Event>& events,
                             store::Change& change) {
  const envelope::Header& header = next.header();
  const auto add = [&](audit::EventType type, const PathRecord& path) {
    audit::Event event;
    event.type = type;
    event.key = audit::EventKey{header.key_name, header.key_version};
    event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, next.hash()};
    event.paths = DescribePaths({&path});
    events.push_back(std::move(event));
  };
  const auto gone = [&](const PathRecord& path) {
    add(audit::EventType::kFactorRemoved, path);
    // What is known of it is of factors that are gone.
    change.path_outcomes.push_back(
        {header.key_name, header.key_version, header.revision, path.id, agent_.Now(), false, ""});
  };
  for (const std::size_t index : plan.removed) gone(old.header().paths[index]);
  for (std::size_t index = 0; index < plan.paths.size(); ++index) {
    const PlannedPath& planned = plan.paths[index];
    if (planned.change == PathChange::kKept) continue;
    if (planned.change == PathChange::kPasswordChanged) gone(old.header().paths[planned.old_index]);
    add(audit::EventType::kFactorEnrolled, header.paths[index]);
  }
  return Ok();
}

Result<AppendReceipt> Editor::Commit(const EditGuard& guard, std::vector<audit::Event> events,
                                     store::Change& change) {
  ASSIGN_OR_RETURN(const RotationLock lock, guard.BeforeCommit(agent_, change));
  auto committed = agent_.journal().Append(std::move(events), change);
  if (committed || committed.error().code() != ErrorCode::kAlreadyExists) return committed;
  return Error(
      ErrorCode::kStoreBusy, Action::kRetry,
      "another command changed " + request_.key_name + " in this moment; nothing was changed",
      "look at 'keyescrow path list " + request_.key_name + "', and run the command again");
}

Status Editor::FindProvenBefore(const SealedEnvelope& old, const EditPlan& plan,
                                EditResult& result) {
  ASSIGN_OR_RETURN(auto states, agent_.store().PathStates(request_.key_name));
  RETURN_IF_ERROR(AddCover(agent_, old.header(), states));
  std::string taken;
  for (const store::PathState& state : states) {
    if (state.key_version != old.header().key_version || !state.proven ||
        (state.failed && *state.failed >= *state.proven)) {
      continue;
    }
    for (EditedPath& path : result.paths) {
      if (path.path_id == state.path_id && path.change == PathChange::kKept) {
        path.proven_before = true;
      }
    }
    for (const std::size_t index : plan.removed) {
      const policy::PathFacts path = policy::FactsOf(old.header()).paths[index];
      if (path.id == state.path_id && !path.expression.NeedsTpm()) taken = path.id;
    }
  }
  // Who puts another path in its place knows that it is not proven: that is a finding.
  const bool only_removes = std::ranges::all_of(
      result.paths, [](const EditedPath& path) { return path.change == PathChange::kKept; });
  const bool one_stays = std::ranges::any_of(result.paths, [](const EditedPath& path) {
    return path.portable && (path.proven || path.proven_before);
  });
  if (taken.empty() || !only_removes || one_stays) return Ok();
  return Error(ErrorCode::kPathForbidden, Action::kFixInput,
               "the path " + taken + " is the last of " + request_.key_name +
                   " that opens without a host's tpm and was seen to open; nothing was changed",
               "prove another one first: 'keyescrow drill " + request_.key_name + "'");
}

Result<EditResult> Editor::Run() {
  ASSIGN_OR_RETURN(const EditGuard guard, EditGuard::Begin(agent_, request_.key_name));
  ASSIGN_OR_RETURN(const EnvelopeToEdit source, FindToEdit(agent_, request_));
  const SealedEnvelope& old = source.sealed;
  ASSIGN_OR_RETURN(const EditPlan plan, PlanEdit(agent_, old.header(), request_));
  RETURN_IF_ERROR(agent_.store().CheckWritable());
  RETURN_IF_ERROR(secrets_.MayAsk([&]() -> Result<Secrets::TokenNames> {
    ASSIGN_OR_RETURN(Secrets::TokenNames names,
                     TokensToOpen(old.header(), request_.via, &agent_.store()));
    if (!names.empty()) return names;  // they ask first, and what is made needs PINs of its own
    for (const PlannedPath& path : plan.paths) {
      if (path.change != PathChange::kKept) names.merge(TokensOf(path.option.expression));
    }
    return names;
  }));
  ASSIGN_OR_RETURN(const OpenedBy opened, Open(old));
  PausePoint("content-open");
  const PathRecord& via = old.header().paths[opened.index];
  secrets_.Opened(PasswordOf(via) != nullptr);
  for (const PathRecord& path : old.header().paths) {
    const bool shares = PasswordOf(path) != nullptr && PasswordOf(via) != nullptr &&
                        SamePassword(*PasswordOf(path), *PasswordOf(via));
    const PlannedPath* planned = plan.Find(path.id);
    if (shares && planned != nullptr && planned->change == PathChange::kKept) {
      secrets_.Share(path.id);
    }
  }
  ASSIGN_OR_RETURN(const auto paths, MakePaths(old, plan, opened));
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent_.Policy());
  progress_.Step("sealing and signing");
  const std::int64_t now = agent_.Now();
  ASSIGN_OR_RETURN(const envelope::SealedBytes made,
                   envelope::Reseal(old, opened.envelope, {in_force->policy.name, FormatUtc(now)},
                                    paths, agent_.signer(), *agent_.environment().random));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent_, "", false));
  ASSIGN_OR_RETURN(const SealedEnvelope next, SealedEnvelope::Read(AsBytes(made.file), trust));
  const envelope::Header& header = next.header();

  EditResult result;
  std::vector<audit::Event> events;
  store::Change change;
  store::EnvelopeRecord record;
  record.key_name = header.key_name;
  record.key_version = header.key_version;
  record.revision = header.revision;
  record.envelope_id = header.envelope_id;
  record.sha256 = made.hash;
  record.created = now;
  record.bytes = ToBytes(AsBytes(made.file));
  record.path_set = PathSetDigest(header);
  change.envelopes.push_back(record);
  audit::Event& rewrapped = events.emplace_back();
  rewrapped.type = audit::EventType::kEscrowRewrapped;
  rewrapped.key = audit::EventKey{header.key_name, header.key_version};
  rewrapped.envelope = audit::EventEnvelope{header.envelope_id, header.revision, made.hash};
  rewrapped.policy = in_force->Event();
  std::vector<const PathRecord*> all_paths;
  for (const PathRecord& path : header.paths) all_paths.push_back(&path);
  rewrapped.paths = DescribePaths(all_paths);
  rewrapped.reason = Reason(old, plan, via.id);
  RETURN_IF_ERROR(AddPathEvents(old, next, plan, events, change));
  RETURN_IF_ERROR(Prove(next, plan, opened, events, change, result));
  tokens_.Finish();
  RETURN_IF_ERROR(FindProvenBefore(old, plan, result));
  PausePoint("before-commit");
  ASSIGN_OR_RETURN(const AppendReceipt receipt, Commit(guard, std::move(events), change));
  PausePoint("committed");
  ASSIGN_OR_RETURN(const store::EnvelopeRecord written,
                   agent_.store().FindEnvelope(header.key_name, header.key_version));
  if (written.revision == record.revision && written.bytes != record.bytes) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store gives other bytes than those that were committed",
                 "run 'keyescrow verify', and compare the store with a copy");
  }

  result.key_name = header.key_name;
  result.key_version = header.key_version;
  result.revision = header.revision;
  result.via = via.id;
  result.envelope_id = header.envelope_id;
  result.envelope_hash = made.hash;
  result.previous_hash = old.hash();
  for (const std::size_t index : plan.removed) {
    result.removed.push_back(old.header().paths[index].id);
  }
  result.old_copies_open = plan.Revokes();
  result.log_seq = receipt.seq;
  result.p256_signed = receipt.p256_signed;
  result.findings = plan.findings;
  AddFindings(result);
  return result;
}

}  // namespace

Result<EditResult> EditPaths(Agent& agent, const EditRequest& request, Secrets& secrets,
                             Progress& progress) {
  Editor editor(agent, request, secrets, progress);
  return editor.Run();
}

}  // namespace keyescrow::agent
