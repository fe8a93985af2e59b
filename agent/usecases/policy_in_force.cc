#include "agent/usecases/policy_in_force.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "agent/policy/signature.h"
#include "agent/usecases/agent.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

Error Damaged(const store::PolicyRecord& record, const std::string& why) {
  return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
               fmt::format("the policy {} serial {} in the store is not what was signed: {}",
                           record.name, record.serial, why),
               "somebody changed the store: compare it with a copy; a restore from an .escrow file "
               "with --state of an empty folder still works");
}

// NewerAgentNeeded: a warning of one that was never taken, since what complies with the policy
// before it starts; critical of one that was in force, which an older program must not put out of
// it.
Finding NewerAgentNeeded(Severity severity, const std::string& host, const std::string& policy_name,
                         std::string_view serial, std::string_view version) {
  return {"policy_needs_newer_agent",
          "",
          host,
          severity,
          fmt::format("the policy {} serial {} asks for keyescrow {} or newer; this is {}, and the "
                      "policy before it holds",
                      policy_name, serial, version, policy::kAgentVersion),
          "install that version, then run 'keyescrow policy set' with the policy's file"};
}

// ReadRecord parses and verifies one policy of the store.
Result<PolicyInForce> ReadRecord(const store::PolicyRecord& record) {
  if (Sha256(AsBytes(record.text)) != record.sha256) return Damaged(record, "its text was changed");
  auto parsed = policy::ParsePolicy(record.text, "policy " + record.name);
  if (!parsed && parsed.error().code() == ErrorCode::kPolicyNewerAgent) {
    return std::move(parsed).error();
  }
  if (!parsed) return Damaged(record, parsed.error().message());
  const auto signers = policy::ParseSigners(record.signers);
  if (!signers) return Damaged(record, "its signers do not parse");
  if (const Status verified = policy::VerifySignature(*parsed, record.note, *signers); !verified) {
    return Damaged(record, verified.error().message());
  }
  if (parsed->serial != record.serial) return Damaged(record, "its serial was changed");
  PolicyInForce in_force;
  // Of the signed text, or those whose signatures it bears: the row's own word is nobody's.
  in_force.next_signers = parsed->signers.value_or(*signers);
  in_force.policy = std::move(*parsed);
  in_force.text = record.text;
  in_force.note = record.note;
  in_force.set_time = record.set_time;
  return in_force;
}

// AddPending adds the finding that `policy set` left for a policy that came too early.
Status AddPending(store::EscrowStore& store, const std::string& host, PolicyInForce& in_force) {
  ASSIGN_OR_RETURN(const auto pending, store.GetSetting(kPolicyPendingSetting));
  if (!pending) return Ok();
  const std::size_t first = pending->find(' ');
  const std::size_t second = pending->find(' ', first + 1);
  if (first == std::string::npos || second == std::string::npos) return Ok();
  std::uint64_t serial = 0;
  std::from_chars(pending->data(), pending->data() + first, serial);
  if (serial <= in_force.policy.serial) return Ok();
  in_force.findings.push_back(
      NewerAgentNeeded(Severity::kWarning, host, pending->substr(first + 1, second - first - 1),
                       pending->substr(0, first), pending->substr(second + 1)));
  return Ok();
}

// Evidence is what `token add` recorded (host_devices.cc): claims of the module.
policy::TokenEvidence ReadEvidence(const store::TokenRecord& record) {
  policy::TokenEvidence evidence;
  evidence.name = record.name;
  evidence.spki_sha256 = Sha256(record.spki);
  const auto json = nlohmann::json::parse(record.evidence, nullptr, false);
  if (!json.is_object()) return evidence;
  const auto flag = [&](const char* group, const char* name) {
    const auto object = json.find(group);
    if (object == json.end() || !object->is_object()) return false;
    const auto found = object->find(name);
    return found != object->end() && found->is_boolean() && found->get<bool>();
  };
  evidence.simulator = flag("token", "software");
  if (!json.contains("attributes")) return evidence;
  const bool asserted = !evidence.simulator && flag("attributes", "always_sensitive") &&
                        flag("attributes", "never_extractable");
  evidence.assurance = asserted ? policy::Assurance::kAsserted : policy::Assurance::kSoftware;
  return evidence;
}

}  // namespace

Result<PolicyInForce> LoadPolicy(store::EscrowStore& store, const std::string& host) {
  PolicyInForce in_force;
  std::vector<Finding> findings;
  // Nearly always the newest one can be read, and the others need not be.
  for (const std::size_t limit : {std::size_t{1}, std::size_t{0}}) {
    findings.clear();
    ASSIGN_OR_RETURN(const auto records, store.Policies(limit));
    for (const store::PolicyRecord& record : records) {
      auto read = ReadRecord(record);
      if (read) {
        in_force = std::move(*read);
        in_force.findings = std::move(findings);
        RETURN_IF_ERROR(AddPending(store, host, in_force));
        return in_force;
      }
      if (read.error().code() != ErrorCode::kPolicyNewerAgent) return std::move(read).error();
      ASSIGN_OR_RETURN(const policy::Policy head,
                       policy::ParsePolicyHead(record.text, "policy " + record.name));
      findings.push_back(NewerAgentNeeded(Severity::kCritical, host, record.name,
                                          std::to_string(record.serial), head.min_agent_version));
    }
    if (records.empty()) break;
  }
  in_force.policy = policy::BuiltinPolicy();
  in_force.text = policy::BuiltinPolicyText();
  in_force.findings = std::move(findings);
  RETURN_IF_ERROR(AddPending(store, host, in_force));
  return in_force;
}

Result<policy::Facts> GatherFacts(Agent& agent) {
  policy::Facts facts;
  facts.host = agent.identity().host;
  facts.now = agent.Now();
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  facts.policy_set = in_force->set_time;
  ASSIGN_OR_RETURN(const auto tokens, agent.store().Tokens());
  for (const store::TokenRecord& token : tokens) facts.tokens.push_back(ReadEvidence(token));
  ASSIGN_OR_RETURN(const auto simulator, agent.store().GetSetting(kTpmSimulatorSetting));
  facts.tpm_simulator = simulator.has_value();
  return facts;
}

void AddProofs(policy::KeyFacts& key, std::uint32_t revision,
               const std::vector<store::PathState>& states) {
  for (policy::PathFacts& path : key.paths) {
    for (const store::PathState& state : states) {
      if (state.key_name != key.name || state.key_version != key.version ||
          state.path_id != path.id) {
        continue;
      }
      path.proven = state.proven;
      path.proven_this_revision = state.proven_revision == revision;
      path.failed = state.failed;
      path.failure = state.failure;
    }
  }
}

Result<std::vector<std::string>> LoadBlocklist(store::EscrowStore& store,
                                               const PolicyInForce& in_force,
                                               const policy::PasswordRule& rule) {
  std::vector<std::string> lines;
  if (rule.blocklist.empty()) return lines;
  ASSIGN_OR_RETURN(const auto files, store.PolicyFiles(in_force.policy.serial));
  const auto file = std::find_if(files.begin(), files.end(), [&](const store::PolicyFile& other) {
    return other.name == rule.blocklist;
  });
  if (file == files.end() || Sha256(file->bytes) != rule.blocklist_sha256) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store does not hold the blocklist " + rule.blocklist + " of the policy",
                 "put the store back from a copy, or set the policy's next serial");
  }
  std::string_view text = AsText(file->bytes);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) lines.emplace_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace keyescrow::agent
