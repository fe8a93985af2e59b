#include "agent/usecases/foreign_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/usecases/envelope_source.h"
#include "agent/usecases/host_ties.h"
#include "agent/usecases/policy_checks.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxSegment = 64;
constexpr std::size_t kMaxKeyName = 128;
constexpr std::string_view kNameCharacters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-*";

constexpr policy::EvaluateOptions kShape{.shape_only = true, .as_enforced = false};

Result<std::vector<Finding>> Keep(const PolicyInForce& in_force, std::vector<Finding> findings) {
  for (const Finding& finding : findings) {
    if (finding.severity == Severity::kCritical) return RefusedBy(in_force, finding);
  }
  return findings;
}

// MatchesAll: no pattern, or one without a letter, which is of every host or of every key with so
// many segments.
bool MatchesAll(const std::vector<std::string>& patterns) {
  return patterns.empty() ||
         std::any_of(patterns.begin(), patterns.end(), [](const std::string& pattern) {
           return pattern.find_first_not_of("*/") == std::string::npos;
         });
}

// FitsSegments: between slashes and `**` a valid name has 1 to 64 characters, and no `.` or `..`.
bool FitsSegments(std::string_view pattern) {
  std::size_t num_literals = 0;
  std::string_view rest = pattern;
  while (!rest.empty()) {
    const std::string_view segment = rest.substr(0, rest.find('/'));
    if (segment.empty() || segment == "." || segment == "..") return false;
    std::size_t num_in_piece = 0;
    for (std::size_t at = 0; at < segment.size(); ++at) {
      const bool across = segment.substr(at).starts_with("**");
      num_in_piece = across ? 0 : num_in_piece + (segment[at] == '*' ? 0 : 1);
      if (num_in_piece > kMaxSegment) return false;
      num_literals += segment[at] == '*' ? 0 : 1;
    }
    rest.remove_prefix(segment.size());
    if (rest == "/") return false;
    num_literals += rest.empty() ? 0 : 1;
    rest.remove_prefix(rest.empty() ? 0 : 1);
  }
  return num_literals <= kMaxKeyName;
}

// CheckPatterns refuses what no name can match: a trust that was misspelt would look narrow.
Status CheckPatterns(const std::vector<std::string>& patterns, std::string_view option,
                     std::string_view characters) {
  for (const std::string& pattern : patterns) {
    const auto known = [&](char c) { return characters.find(c) != std::string_view::npos; };
    if (!pattern.empty() && std::all_of(pattern.begin(), pattern.end(), known) &&
        FitsSegments(pattern)) {
      continue;
    }
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 fmt::format("{} \"{}\" can match no {}", option, pattern,
                             option == "--host" ? "host's name" : "key's name"),
                 option == "--host"
                     ? "a host's name has letters, digits, '.', '_' and '-'; '*' stands for any "
                       "of them"
                     : "a key's name has letters, digits, '.', '_' and '-' in segments joined by "
                       "'/'; '*' stands for any within a segment, '**' across segments");
  }
  return Ok();
}

// CheckSameMaker refuses what another host, or another agent, made than the envelope that is here.
Status CheckSameMaker(Agent& agent, const store::EnvelopeRecord& record,
                      const envelope::Header& header) {
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  ASSIGN_OR_RETURN(const auto here, envelope::SealedEnvelope::Read(record.bytes, trust));
  if (here.header().host == header.host && here.header().agent == header.agent) return Ok();
  return Error(
      ErrorCode::kAlreadyExists, Action::kFixInput,
      "another key is escrowed here as " + header.key_name + ", of the host " + here.header().host,
      "it was left alone; take this one under a name of its own with 'keyescrow adopt FILE "
      "--as NAME'");
}

// LostBy returns the keys under rules whose newest version the agent signed, and that its new
// limits leave out where its present ones do not: as its removal would lose them.
Result<std::vector<std::string>> LostBy(Agent& agent, const PolicyInForce& in_force,
                                        const store::TrustRecord& record) {
  std::vector<std::string> lost;
  const auto before = agent.store().FindTrust(record.thumbprint);
  if (!before) return lost;
  ASSIGN_OR_RETURN(const auto beyond, VersionsBeyond(agent, record));
  ASSIGN_OR_RETURN(const auto already, VersionsBeyond(agent, *before));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  for (const HostTies::Version& key : beyond) {
    const bool is_new =
        std::none_of(already.begin(), already.end(), [&](const HostTies::Version& other) {
          return other.key_name == key.key_name && other.key_version == key.key_version;
        });
    ASSIGN_OR_RETURN(const auto newest, agent.store().FindEnvelope(key.key_name, std::nullopt));
    if (!is_new || newest.key_version != key.key_version) continue;
    ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(newest.bytes, trust));
    const auto rules =
        policy::MatchingRules(in_force.policy, key.key_name, sealed.header().host, agent.Now());
    if (!rules.empty()) lost.push_back(key.key_name);
  }
  return lost;
}

}  // namespace

Status CheckSameKey(Agent& agent, const envelope::Header& header,
                    const store::EnvelopeRecord* existing) {
  const auto newest = agent.store().FindEnvelope(header.key_name, std::nullopt);
  if (!newest) {
    // Nobody's name, or that of a key whose every version was destroyed.
    const ErrorCode code = newest.error().code();
    if (code == ErrorCode::kKeyNotFound || code == ErrorCode::kNotFound) return Ok();
    return newest.error();
  }
  RETURN_IF_ERROR(CheckSameMaker(agent, *newest, header));
  return existing == nullptr ? Ok() : CheckSameMaker(agent, *existing, header);
}

Result<std::vector<Finding>> CheckImport(Agent& agent, const envelope::Header& header) {
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  policy::KeyFacts key = policy::FactsOf(header);
  // A grace is of the key's first days, wherever they were: no import begins it anew.
  key.first_created = std::min({FirstCreated(agent, header.key_name), key.created, agent.Now()});
  std::vector<Finding> findings =
      policy::EvaluateKey(in_force->policy, key, facts, kShape).findings;
  for (Finding& finding : findings) {
    finding.remedy =
        "on the host that made it, back the key up under paths that comply, and "
        "import that; this file still restores by itself";
  }
  return Keep(*in_force, std::move(findings));
}

Result<std::vector<Finding>> CheckTrustScope(Agent& agent, const store::TrustRecord& record) {
  const std::string host_characters(kNameCharacters);
  RETURN_IF_ERROR(CheckPatterns(record.hosts, "--host", host_characters));
  RETURN_IF_ERROR(CheckPatterns(record.keys, "--key", host_characters + "/"));
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  std::vector<Finding> findings;
  if (in_force->IsBuiltin()) return findings;
  const Severity severity =
      in_force->policy.mode == policy::Mode::kEnforce ? Severity::kCritical : Severity::kWarning;
  const auto add = [&](const char* what, const char* remedy) {
    findings.push_back({"trust_unlimited", "", agent.identity().host, severity, what, remedy});
  };
  if (MatchesAll(record.hosts)) {
    add("the agent could sign for every host, whatever rules hold for its keys",
        "name the hosts that it is the agent of: --host HOST");
  }
  if (MatchesAll(record.keys)) {
    add("the agent could sign for every key, whatever rules hold for it",
        "name the keys that it escrows: --key PATTERN, as in the rules' match");
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> lost, LostBy(agent, *in_force, record));
  for (const std::string& key : lost) {
    findings.push_back({"trust_narrowed", key, agent.identity().host, severity,
                        key + " was signed by this agent, and these limits leave it out: it could "
                              "not be restored here any more",
                        "give limits that reach it, or back that key up again from this host"});
  }
  return Keep(*in_force, std::move(findings));
}

}  // namespace keyescrow::agent
