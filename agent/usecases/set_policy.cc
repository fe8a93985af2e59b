#include "agent/usecases/set_policy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "agent/policy/signature.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/rotation_record.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxBlocklistBytes = 8U << 20;
// What is made under a policy says its name alone: `builtin-1` must mean one thing.
constexpr std::string_view kBuiltinPrefix = "builtin-";

std::string FolderOf(const std::string& file) {
  const std::size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash + 1);
}

bool SameKey(const envelope::NoteKey& left, const envelope::NoteKey& right) {
  return left.ed25519 == right.ed25519 && left.p256 == right.p256;
}

// FirstSigners: all of the pinned keys, or the policy's threshold where its signers are those keys.
policy::Signers FirstSigners(const policy::Policy& policy, policy::Signers pinned) {
  pinned.threshold = pinned.keys.size();
  if (!policy.signers || policy.signers->keys.size() != pinned.keys.size()) return pinned;
  const bool same = std::all_of(
      policy.signers->keys.begin(), policy.signers->keys.end(), [&](const envelope::NoteKey& key) {
        return std::any_of(pinned.keys.begin(), pinned.keys.end(),
                           [&](const envelope::NoteKey& other) { return SameKey(key, other); });
      });
  if (same) pinned.threshold = policy.signers->threshold;
  return pinned;
}

// SignersFor: whose signatures the candidate needs here.
Result<policy::Signers> SignersFor(const PolicyInForce& in_force, const policy::Policy& candidate,
                                   const std::vector<std::string>& policy_keys) {
  if (in_force.next_signers.threshold > 0) {
    if (policy_keys.empty()) return in_force.next_signers;
    return Error(
        ErrorCode::kPolicyNoSigners, Action::kFixInput,
        "the signers of policies are pinned here already, by the policy " + in_force.policy.name,
        "leave --policy-key out; the next policy's [signers] can name others");
  }
  if (policy_keys.empty()) {
    return Error(ErrorCode::kPolicyNoSigners, Action::kFixInput,
                 "nobody's signature of a policy counts here yet",
                 "name the first signers with --policy-key VKEY, as 'policy sign' prints them");
  }
  ASSIGN_OR_RETURN(policy::Signers pinned, ParsePolicyKeys(policy_keys));
  return FirstSigners(candidate, std::move(pinned));
}

Status CheckSerial(const PolicyInForce& in_force, const policy::Policy& candidate) {
  if (candidate.serial > in_force.policy.serial) return Ok();
  return Error(
      ErrorCode::kPolicyOlder, Action::kFixInput,
      fmt::format("the policy {} has the serial {}, and {} with the serial {} is in force",
                  candidate.name, candidate.serial, in_force.policy.name, in_force.policy.serial),
      "serials only grow: give the new policy a greater one and have it signed again");
}

Status CheckExpiry(const policy::Policy& candidate, std::int64_t now) {
  if (!candidate.expires || now < *candidate.expires) return Ok();
  return Error(ErrorCode::kPolicyExpired, Action::kFixInput,
               fmt::format("the policy {} serial {} expired on {}", candidate.name,
                           candidate.serial, FormatUtc(*candidate.expires)),
               "have its signers review it and sign one that expires later");
}

// CheckAcceptable is all that `policy set` asks for.
Result<policy::Signers> CheckAcceptable(Agent& agent, const PolicyCandidate& candidate,
                                        const std::vector<std::string>& policy_keys) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(policy::Signers signers, SignersFor(*in_force, candidate.policy, policy_keys));
  RETURN_IF_ERROR(policy::VerifySignature(candidate.policy, candidate.note, signers));
  RETURN_IF_ERROR(CheckSerial(*in_force, candidate.policy));
  RETURN_IF_ERROR(CheckExpiry(candidate.policy, agent.Now()));
  return signers;
}

// Effects evaluates every escrowed key under the policy in force as it is, and under the candidate
// as if it were enforced at once.
Result<std::vector<PolicyEffect>> Effects(Agent& agent, const policy::Policy& candidate) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  ASSIGN_OR_RETURN(const std::vector<KeyView> keys, ListKeys(agent));
  const policy::EvaluateOptions strictly{.shape_only = false, .as_enforced = true};
  std::vector<PolicyEffect> effects;
  for (const KeyView& key : keys) {
    policy::KeyFacts key_facts = key.facts;
    ASSIGN_OR_RETURN(const KeySince since, ReadKeySince(agent, key.name, key.version));
    key_facts.made = since.made;
    key_facts.restored = since.released;
    PolicyEffect& effect = effects.emplace_back();
    effect.key_name = key.name;
    effect.complies_now = EvaluateKey(in_force->policy, key_facts, facts).Complies();
    policy::Evaluation evaluation = EvaluateKey(candidate, key_facts, facts, strictly);
    effect.would_comply = evaluation.Complies();
    for (Finding& finding : evaluation.findings) {
      if (finding.severity == Severity::kCritical) effect.findings.push_back(std::move(finding));
    }
  }
  return effects;
}

Result<std::vector<store::PolicyFile>> ReadBlocklists(const policy::Policy& candidate,
                                                      const std::string& file) {
  std::vector<store::PolicyFile> files;
  for (const policy::PasswordRule& rule : candidate.passwords) {
    if (rule.blocklist.empty()) continue;
    const std::string path = FolderOf(file) + rule.blocklist;
    ASSIGN_OR_RETURN(const std::string text, ReadPolicyText(path, kMaxBlocklistBytes));
    if (Sha256(AsBytes(text)) != rule.blocklist_sha256) {
      return Error(ErrorCode::kPolicyFile, Action::kFixInput,
                   fmt::format("{} is not the list whose SHA-256 the policy names for the profile "
                               "{}",
                               path, rule.name),
                   "take the list that the policy was signed with, or write its sha256sum anew");
    }
    const bool known = std::any_of(files.begin(), files.end(), [&](const store::PolicyFile& other) {
      return other.name == rule.blocklist;
    });
    if (!known) files.push_back({rule.blocklist, ToBytes(AsBytes(text))});
  }
  return files;
}

// RecordTooNew tells log and `status` of a rightly signed policy that this version cannot read.
Error RecordTooNew(Agent& agent, const std::string& file,
                   const std::vector<std::string>& policy_keys, Error too_new) {
  const auto recorded = [&]() -> Status {
    PolicyCandidate candidate;
    ASSIGN_OR_RETURN(candidate.text, ReadPolicyText(file, policy::kMaxPolicyBytes));
    ASSIGN_OR_RETURN(candidate.policy, policy::ParsePolicyHead(candidate.text, file));
    candidate.note = ReadPolicyText(SignatureFile(file), envelope::kMaxNoteBytes).value_or("");
    RETURN_IF_ERROR(CheckAcceptable(agent, candidate, policy_keys));
    audit::Event event;
    event.type = audit::EventType::kPolicyChanged;
    event.outcome = audit::Outcome::kFailure;
    event.error = ErrorCodeName(too_new.code());
    event.policy =
        audit::EventPolicy{candidate.policy.name, candidate.policy.serial, candidate.policy.sha256};
    store::Change change;
    change.settings.push_back(
        {std::string(kPolicyPendingSetting),
         fmt::format("{} {} {}", candidate.policy.serial, candidate.policy.name,
                     candidate.policy.min_agent_version)});
    RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
    return Ok();
  }();
  // A file that nobody signed rightly is refused for that, whatever it asks for.
  return recorded ? too_new : recorded.error();
}

}  // namespace

std::string SignatureFile(const std::string& policy_file) { return policy_file + ".sig"; }

Result<std::string> ReadPolicyText(const std::string& file, std::size_t max_bytes) {
  const auto unreadable = [&](int error_number) {
    return ErrnoError(ErrorCode::kPolicyFile, Action::kFixInput, file + " cannot be read",
                      "check its name and its permissions", error_number);
  };
  const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return unreadable(errno);
  struct stat status {};
  if (fstat(descriptor, &status) == 0 && !S_ISREG(status.st_mode)) {
    close(descriptor);
    return Error(ErrorCode::kPolicyFile, Action::kFixInput, file + " is no regular file",
                 "name the file itself");
  }
  std::string text;
  char buffer[4096];
  ssize_t count = 0;
  do {
    count = read(descriptor, buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
  } while ((count > 0 || (count < 0 && errno == EINTR)) && text.size() <= max_bytes);
  const int error_number = errno;
  close(descriptor);
  if (count < 0) return unreadable(error_number);
  if (text.size() > max_bytes) {
    return Error(ErrorCode::kPolicyFile, Action::kFixInput,
                 fmt::format("{} is larger than {} bytes", file, max_bytes),
                 "check that it is the right file");
  }
  return text;
}

Result<PolicyCandidate> ReadCandidate(const std::string& file) {
  PolicyCandidate candidate;
  candidate.file = file;
  ASSIGN_OR_RETURN(candidate.text, ReadPolicyText(file, policy::kMaxPolicyBytes));
  ASSIGN_OR_RETURN(candidate.policy, policy::ParsePolicy(candidate.text, file));
  RETURN_IF_ERROR(policy::CheckContradictions(candidate.policy, file));
  if (candidate.policy.name.starts_with(kBuiltinPrefix)) {
    return Error(ErrorCode::kPolicyInvalid, Action::kFixInput,
                 fmt::format("{}: the name {} is kept for the policies that come with keyescrow",
                             file, candidate.policy.name),
                 "give the policy a name of its own");
  }
  ASSIGN_OR_RETURN(candidate.files, ReadBlocklists(candidate.policy, file));
  const std::string signature_file = SignatureFile(file);
  if (access(signature_file.c_str(), F_OK) == 0) {
    ASSIGN_OR_RETURN(candidate.note, ReadPolicyText(signature_file, envelope::kMaxNoteBytes));
  }
  return candidate;
}

std::size_t PolicyCheck::NumBecoming(bool compliant) const {
  return static_cast<std::size_t>(
      std::count_if(effects.begin(), effects.end(), [&](const PolicyEffect& effect) {
        return effect.would_comply == compliant && effect.complies_now != compliant;
      }));
}

Result<policy::Signers> ParsePolicyKeys(const std::vector<std::string>& policy_keys) {
  policy::Signers signers;
  for (const std::string& text : policy_keys) {
    auto key = envelope::NoteKey::FromVkey(text);
    if (!key) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "--policy-key is not a verifier key (name+id+base64)",
                   "copy what 'keyescrow policy sign' printed, in single quotes");
    }
    for (const envelope::NoteKey& other : signers.keys) {
      if (!SameKey(other, *key)) continue;
      return Error(
          ErrorCode::kUsage, Action::kFixInput,
          fmt::format("--policy-key names one key twice, as {} and {}", other.name, key->name),
          "name each signer's key once");
    }
    signers.keys.push_back(std::move(*key));
  }
  if (signers.keys.size() > policy::kMaxSigners) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "more than 16 signers",
                 "name at most 16 with --policy-key");
  }
  signers.threshold = signers.keys.size();
  return signers;
}

Status CheckFirstPolicy(const PolicyCandidate& candidate,
                        const std::vector<std::string>& policy_keys, std::int64_t now) {
  PolicyInForce nothing;
  ASSIGN_OR_RETURN(const policy::Signers signers,
                   SignersFor(nothing, candidate.policy, policy_keys));
  RETURN_IF_ERROR(policy::VerifySignature(candidate.policy, candidate.note, signers));
  return CheckExpiry(candidate.policy, now);
}

Result<PolicyCheck> CheckPolicy(Agent* agent, const std::string& file,
                                const std::vector<std::string>& policy_keys) {
  PolicyCheck check;
  ASSIGN_OR_RETURN(check.candidate, ReadCandidate(file));
  ASSIGN_OR_RETURN(const policy::Signers named, ParsePolicyKeys(policy_keys));
  std::vector<envelope::NoteKey> keys = named.keys;
  const auto read_signers = [&](const std::optional<policy::Signers>& more) {
    if (more) keys.insert(keys.end(), more->keys.begin(), more->keys.end());
    auto lines = policy::ReadSignerLines(check.candidate.policy, check.candidate.note, keys);
    check.signers = std::move(lines.verified);
    check.unverified_signers = std::move(lines.unverified);
  };
  if (agent == nullptr) {
    read_signers(check.candidate.policy.signers);
    return check;
  }
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent->Policy());
  if (in_force->next_signers.threshold > 0) keys.clear();  // pinned: nobody else's count
  read_signers(in_force->next_signers);
  check.in_force = in_force->policy.name;
  const auto acceptable = CheckAcceptable(*agent, check.candidate, policy_keys);
  if (!acceptable) check.refusal = acceptable.error();
  ASSIGN_OR_RETURN(check.effects, Effects(*agent, check.candidate.policy));
  return check;
}

Result<SetPolicyResult> SetPolicy(Agent& agent, const std::string& file,
                                  const std::vector<std::string>& policy_keys) {
  SetPolicyResult result;
  auto checked = CheckPolicy(&agent, file, policy_keys);
  if (!checked && checked.error().code() == ErrorCode::kPolicyNewerAgent) {
    return RecordTooNew(agent, file, policy_keys, checked.error());
  }
  ASSIGN_OR_RETURN(result.check, std::move(checked));
  const PolicyCandidate& candidate = result.check.candidate;
  ASSIGN_OR_RETURN(result.signers, CheckAcceptable(agent, candidate, policy_keys));

  store::PolicyRecord record;
  record.serial = candidate.policy.serial;
  record.name = candidate.policy.name;
  record.sha256 = candidate.policy.sha256;
  record.text = candidate.text;
  record.note = candidate.note;
  record.signers = policy::FormatSigners(result.signers);
  record.next_signers = policy::FormatSigners(candidate.policy.signers.value_or(result.signers));
  record.set_time = agent.Now();
  record.files = candidate.files;
  store::Change change;
  change.policies.push_back(std::move(record));
  ASSIGN_OR_RETURN(const auto pending, agent.store().GetSetting(kPolicyPendingSetting));
  std::uint64_t pending_serial = 0;
  if (pending) {
    std::from_chars(pending->data(), pending->data() + pending->size(), pending_serial);
  }
  // One that asks for a newer agent, and is newer than this one, is waited for still.
  if (candidate.policy.serial >= pending_serial) {
    change.settings.push_back({std::string(kPolicyPendingSetting), std::nullopt});
  }
  audit::Event event;
  event.type = audit::EventType::kPolicyChanged;
  event.policy =
      audit::EventPolicy{candidate.policy.name, candidate.policy.serial, candidate.policy.sha256};
  event.approvers = result.check.signers;
  event.reason =
      PolicyReason(policy::ModeName(candidate.policy.mode), policy::FormatSigners(result.signers));
  auto receipt = agent.journal().Append(std::move(event), change);
  if (!receipt && receipt.error().code() == ErrorCode::kAlreadyExists) {
    return Error(ErrorCode::kPolicyOlder, Action::kFixInput,
                 "another policy with this serial or a greater one was set in this moment",
                 "look at 'keyescrow policy show'");
  }
  ASSIGN_OR_RETURN(const AppendReceipt appended, std::move(receipt));
  result.log_seq = appended.seq;
  agent.ForgetPolicy();
  return result;
}

}  // namespace keyescrow::agent
