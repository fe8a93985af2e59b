#include "agent/usecases/recovery_key_making.h"

#include <algorithm>
#include <utility>

#include "agent/usecases/enroll.h"
#include "agent/usecases/kdf_choice.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/token_sessions.h"

namespace keyescrow::agent {

using envelope::FactorKind;
using envelope::PathOption;

store::RecoveryKeyRecord RecoveryKeyRow(const Agent& agent, const envelope::RecoveryKey& key) {
  store::RecoveryKeyRecord row;
  row.name = key.record.name;
  row.thumbprint = key.Thumbprint();
  row.sha256 = key.Sha256();
  row.record = key.text;
  row.added = agent.Now();
  return row;
}

Result<RecoveryKeyChange> RegisterRecoveryKey(Agent& agent, const envelope::RecoveryKey& key,
                                              RecoveryKeyRegistration registration) {
  RecoveryKeyChange result;
  result.findings = std::move(registration.findings);
  result.proven = registration.proven;
  result.why_not = std::move(registration.why_not);
  std::vector<audit::Event> events;
  audit::Event& enrolled = events.emplace_back();
  enrolled.type = audit::EventType::kFactorEnrolled;
  enrolled.paths.push_back(RecoveryKeyEvent(key));
  enrolled.reason = std::move(registration.reason);
  store::Change change;
  change.recovery_keys.push_back(RecoveryKeyRow(agent, key));
  store::RecoveryKeyRecord& row = change.recovery_keys.back();
  row.replaces = registration.replaces;
  if (registration.proven) {
    change.recovery_key_drills.push_back({row.name, row.sha256, agent.Now(), events.size()});
    change.settings.push_back({RecoveryKeyFailureSetting(row.name), std::nullopt});
    audit::Event& drilled = events.emplace_back();
    drilled.type = audit::EventType::kDrillPassed;
    drilled.paths.push_back(RecoveryKeyEvent(key));
    drilled.reason = "the recovery key was opened from the record that is registered";
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent.journal().Append(std::move(events), change));
  result.log_seq = receipt.seq;
  ASSIGN_OR_RETURN(const auto written, agent.store().FindRecoveryKey(key.record.name));
  ASSIGN_OR_RETURN(result.key, DescribeRecoveryKey(written));
  return result;
}

PathOpenOptions RecoveryKeyOpening(Agent& agent, const std::string& name, Secrets& secrets,
                                   Progress& progress) {
  PathOpenOptions options;
  options.devices = agent.environment().devices;
  options.secrets = &secrets;
  options.progress = &progress;
  options.store = &agent.store();
  options.purpose = "of the recovery key " + name;
  return options;
}

Status ProveRecoveryKey(Agent& agent, const envelope::RecoveryKey& made, Secrets& secrets,
                        Progress& progress, StretchedPasswords& passwords,
                        RecoveryKeyRegistration& registration) {
  const auto proven = [&]() -> Status {
    const bool has_shares = std::ranges::any_of(made.factors, [](const auto& factor) {
      return std::holds_alternative<envelope::SharesRecord>(factor);
    });
    if (has_shares && secrets.Desk() != nullptr) {  // they were here a moment ago, or need not be
      return Error(ErrorCode::kFactorMissing, Action::kRetry, "its officers were not asked for it",
                   "have them drill it");
    }
    ASSIGN_OR_RETURN(const envelope::RecoveryKey key, envelope::ParseRecoveryKey(made.text));
    PathOpener opener(RecoveryKeyOpening(agent, key.record.name, secrets, progress), passwords);
    RETURN_IF_ERROR(opener.RecoveryKeyPresent(key));
    for (const envelope::FactorRecord& factor : key.factors) {
      if (const auto token = IdentityOf(factor)) {
        RETURN_IF_ERROR(RequirePin(*token->token, secrets));
      }
    }
    progress.Step("proving the recovery key");
    RETURN_IF_ERROR(opener.OpenRecoveryKey(key));
    opener.Finish();
    return Ok();
  }();
  registration.proven = proven.has_value();
  if (proven) return Ok();
  const Error& error = proven.error();
  if (TellsOfThePath(error) || error.code() == ErrorCode::kWrongPassword) {  // it was typed for it
    return Error(error).WithContext(
        "the record that was made does not open, and nothing was registered");
  }
  registration.why_not = error.message();
  registration.findings.push_back(
      "the recovery key was not opened yet (" + registration.why_not +
      "): prove it with 'keyescrow drill recovery-key:" + made.record.name + "'");
  return Ok();
}

Result<envelope::RecoveryKey> EnrollRecoveryKey(Agent& agent, const RecoveryKeyRequest& request,
                                                const P256KeyPair& pair, PathOption option,
                                                Secrets& secrets, Progress& progress,
                                                StretchedPasswords& passwords) {
  EnrollContext context;
  context.agent = &agent;
  context.secrets = &secrets;
  context.progress = &progress;
  context.passwords = &passwords;
  ASSIGN_OR_RETURN(context.kdfs, ChooseKdfs(agent, "", request.kdf));
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  context.draft.policy = in_force->policy.name;
  context.draft.host = agent.identity().host;
  context.recovery_key = request.name;
  context.binding = envelope::RecoveryKeyBinding(request.name, pair.Public());
  option.id = RecoveryKeyPathId(request.name);
  ASSIGN_OR_RETURN(auto enrolled, EnrollPaths(context, {option}));
  envelope::EnrolledPath& path = enrolled.front();
  if (option.expression.Has(FactorKind::kPassword)) {
    progress.Pause();
    RETURN_IF_ERROR(secrets.ConfirmLoss());
  }
  std::vector<const SecretBytes*> in_order;
  for (const SecretBytes& secret : path.secrets) in_order.push_back(&secret);
  return envelope::ProtectRecoveryKey(request.name, pair, std::move(path.factors), in_order,
                                      *agent.environment().random);
}

}  // namespace keyescrow::agent
