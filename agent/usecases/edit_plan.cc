#include "agent/usecases/edit_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/worse_than.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/path_choice.h"
#include "agent/usecases/policy_checks.h"

namespace keyescrow::agent {
namespace {

using envelope::FactorRecord;
using envelope::PathOption;
using envelope::PathRecord;

// IndexOf finds a path that the command line names. Errors: kPathNotFound.
Result<std::size_t> IndexOf(const envelope::Header& header, const std::string& id) {
  const PathRecord* path = header.FindPath(id);
  if (path == nullptr) return PathNotFound(header, id);
  return static_cast<std::size_t>(path - header.paths.data());
}

Error CannotRemake(const PathRecord& path, const std::string& why) {
  return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
               "the password of the path " + path.id + " cannot be changed here: " + why,
               "change the other paths' alone with --path-id, or replace this path with "
               "'keyescrow path replace'");
}

// CheckTpm: a path to this host's TPM is sealed anew by it.
Status CheckTpm(Agent& agent, const PathRecord& path, const envelope::Tpm2Record& record) {
  if (!record.signer.empty()) return CannotRemake(path, "its PCRs are signed by somebody else");
  if (record.host != agent.identity().host || !record.seed.empty()) {
    return CannotRemake(path, "it is sealed for the tpm of the host " + record.host);
  }
  auto tpm = agent.environment().devices->Tpm();
  auto parent = tpm ? (*tpm)->StorageParent() : Result<Bytes>(tpm.error());
  if (!parent) {
    return std::move(parent)
        .error()
        .WithContext("the path " + path.id + " needs its tpm")
        .WithHint(
            "come back when it answers, or change the other paths' passwords alone with --path-id");
  }
  if (*parent == record.parent_public) return Ok();
  return Error(ErrorCode::kTpmWrongDevice, Action::kWrongDevice,
               "the path " + path.id + " is sealed to another TPM, or this TPM was cleared since",
               "replace that path: 'keyescrow path replace', with a path for this TPM");
}

// CheckRemake: whether the path can be made again with fresh factors now.
Status CheckRemake(Agent& agent, const PathRecord& path) {
  if (path.recovery_key) {
    return CannotRemake(path, "it belongs to the recovery key " + path.recovery_key->name);
  }
  if (PasswordOf(path) == nullptr) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "the path " + path.id + " has no password",
                 "name a path that has one with --path-id");
  }
  for (const FactorRecord& factor : path.factors) {
    if (const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor)) {
      RETURN_IF_ERROR(CheckTpm(agent, path, *tpm));
    }
  }
  return Ok();
}

// PasswordPaths returns the paths whose passwords change.
Result<std::vector<std::size_t>> PasswordPaths(const envelope::Header& header,
                                               const EditRequest& request) {
  std::vector<std::size_t> chosen;
  for (const std::string& id : request.password_paths) {
    ASSIGN_OR_RETURN(const std::size_t index, IndexOf(header, id));
    if (std::ranges::count(chosen, index) == 0) chosen.push_back(index);
  }
  if (!chosen.empty()) return chosen;
  std::string ids;
  bool one_password = true;
  for (std::size_t index = 0; index < header.paths.size(); ++index) {
    const PathRecord& path = header.paths[index];
    const auto* password = PasswordOf(path);
    if (password == nullptr || path.recovery_key) continue;
    one_password = one_password && (chosen.empty() ||
                                    SamePassword(*password, *PasswordOf(header.paths[chosen[0]])));
    chosen.push_back(index);
    ids += (ids.empty() ? "--path-id " : " --path-id ") + path.id;
  }
  if (chosen.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "no path of " + header.key_name + " has a password of its own",
                 "'keyescrow path list " + header.key_name + "' shows them");
  }
  if (one_password) return chosen;
  return Error(ErrorCode::kUsage, Action::kFixInput,
               "the paths of " + header.key_name + " may have different passwords",
               "name those whose password changes: " + ids);
}

Status AddKept(const envelope::Header& header, const EditRequest& request, EditPlan& plan) {
  const policy::KeyFacts old = policy::FactsOf(header);
  std::vector<std::size_t> gone;
  std::vector<std::string> ids = request.remove;
  if (!request.replace.empty()) ids.push_back(request.replace);
  for (const std::string& id : ids) {
    ASSIGN_OR_RETURN(const std::size_t index, IndexOf(header, id));
    if (std::ranges::count(gone, index) == 0) gone.push_back(index);
  }
  std::vector<std::size_t> remade;
  if (request.change_passwords) {
    ASSIGN_OR_RETURN(remade, PasswordPaths(header, request));
  }
  std::vector<PathOption> added;
  if (!request.add.empty()) {
    ASSIGN_OR_RETURN(added, envelope::ParsePathOptions(request.add));
  }
  const auto add_all = [&] {
    for (PathOption& option : added) plan.paths.push_back({std::move(option), PathChange::kAdded});
    added.clear();
  };
  for (std::size_t index = 0; index < header.paths.size(); ++index) {
    if (std::ranges::count(gone, index) != 0) {
      plan.removed.push_back(index);
      if (header.paths[index].id == request.replace) add_all();
      continue;
    }
    const bool again = std::ranges::count(remade, index) != 0;
    plan.paths.push_back({{header.paths[index].id, old.paths[index].expression},
                          again ? PathChange::kPasswordChanged : PathChange::kKept,
                          index});
  }
  add_all();
  return Ok();
}

Status CheckIds(const EditPlan& plan, const std::string& key_name) {
  if (plan.paths.empty()) {
    return Error(ErrorCode::kPathForbidden, Action::kFixInput,
                 "a key keeps one path at least: this would take the last one of " + key_name,
                 "add another path first with 'keyescrow path add'");
  }
  if (plan.paths.size() > envelope::kMaxPaths) {
    return Error(ErrorCode::kInvalidPath, Action::kFixInput,
                 fmt::format("a key has at most {} paths; this would make {}", envelope::kMaxPaths,
                             plan.paths.size()),
                 "remove one first with 'keyescrow path remove'");
  }
  for (std::size_t index = 0; index < plan.paths.size(); ++index) {
    const std::string& id = plan.paths[index].option.id;
    if (plan.Find(id) == &plan.paths[index]) continue;
    return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                 key_name + " has a path " + id + " already",
                 "name the new one otherwise, --path 'ID=EXPR', or use 'keyescrow path replace " +
                     key_name + " " + id + "'");
  }
  return Ok();
}

bool IsPortable(const policy::PathFacts& path) { return !path.expression.NeedsTpm(); }

// Refusal says what to do in an edit, where the finding's remedy speaks of a backup.
Error Refusal(const PolicyInForce& in_force, const Finding& finding, const std::string& key_name) {
  Error error = RefusedBy(in_force, finding);
  const bool missing = finding.rule == "required_path_missing" ||
                       finding.rule == "no_portable_path" || finding.rule == "survives_too_little";
  if (!missing) return error;
  return std::move(error).WithHint("add a path that takes its place first: 'keyescrow path add " +
                                   key_name +
                                   " --path EXPR'; 'keyescrow path replace' does both at once");
}

Status CheckRules(Agent& agent, const envelope::Header& header, EditPlan& plan) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  policy::KeyFacts before = policy::FactsOf(header);
  before.first_created = FirstCreated(agent, header.key_name);
  policy::KeyFacts after = before;
  after.paths.clear();
  for (const PlannedPath& planned : plan.paths) {
    if (planned.change == PathChange::kAdded) {
      ASSIGN_OR_RETURN(policy::PathFacts path, PlannedFacts(agent, planned.option, plan.kdfs));
      after.paths.push_back(std::move(path));
      continue;
    }
    after.paths.push_back(before.paths[planned.old_index]);
    if (planned.change == PathChange::kPasswordChanged) {
      after.paths.back().kdf = plan.kdfs.Of(planned.option.expression);
    }
  }
  const auto worse = policy::WorseThan(in_force->policy, before, after, facts);
  if (!worse.empty()) return Refusal(*in_force, worse.front(), header.key_name);
  if (std::ranges::any_of(before.paths, IsPortable) &&
      !std::ranges::any_of(after.paths, IsPortable)) {
    return Error(ErrorCode::kPathForbidden, Action::kFixInput,
                 "this would take the last path of " + header.key_name +
                     " that opens without a host's tpm: with that tpm the key would be lost",
                 "add another such path first, as 'password & token:NAME'");
  }
  plan.findings = FindingTexts(
      EvaluateKey(in_force->policy, after, facts, {.shape_only = true, .as_enforced = false})
          .findings);
  return Ok();
}

}  // namespace

std::string_view PathChangeName(PathChange change) {
  switch (change) {
    case PathChange::kKept: return "kept";
    case PathChange::kAdded: return "added";
    case PathChange::kPasswordChanged: return "password changed";
  }
  return "kept";
}

bool EditPlan::Revokes() const {
  return !removed.empty() || std::ranges::any_of(paths, [](const PlannedPath& path) {
    return path.change == PathChange::kPasswordChanged;
  });
}

const PlannedPath* EditPlan::Find(std::string_view id) const {
  for (const PlannedPath& path : paths) {
    if (path.option.id == id) return &path;
  }
  return nullptr;
}

const envelope::PasswordRecord* PasswordOf(const PathRecord& path) {
  for (const FactorRecord& factor : path.factors) {
    if (const auto* password = std::get_if<envelope::PasswordRecord>(&factor)) return password;
  }
  return nullptr;
}

bool SamePassword(const envelope::PasswordRecord& left, const envelope::PasswordRecord& right) {
  return left.salt == right.salt && left.kdf == right.kdf;
}

Result<EditPlan> PlanEdit(Agent& agent, const envelope::Header& header,
                          const EditRequest& request) {
  EditPlan plan;
  RETURN_IF_ERROR(AddKept(header, request, plan));
  RETURN_IF_ERROR(CheckIds(plan, header.key_name));
  ASSIGN_OR_RETURN(plan.kdfs, ChooseKdfs(agent, header.key_name, request.kdf));
  std::vector<PathOption> added;
  for (const PlannedPath& path : plan.paths) {
    if (path.change == PathChange::kAdded) added.push_back(path.option);
  }
  RETURN_IF_ERROR(CheckPaths(agent, added));
  RETURN_IF_ERROR(CheckRules(agent, header, plan));
  for (const PlannedPath& path : plan.paths) {
    if (path.change != PathChange::kPasswordChanged) continue;
    RETURN_IF_ERROR(CheckRemake(agent, header.paths[path.old_index]));
  }
  return plan;
}

}  // namespace keyescrow::agent
