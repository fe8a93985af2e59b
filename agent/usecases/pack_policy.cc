#include "agent/usecases/pack_policy.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "agent/policy/evaluate.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/summary_paths.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

constexpr std::string_view kHeldRules[] = {"token_not_pinned",
                                           "recovery_key_not_pinned",
                                           "required_path_missing",
                                           "password_only_path",
                                           "forbidden_path",
                                           "no_portable_path",
                                           "survives_too_little",
                                           "withstands_too_little",
                                           "not_analysed",
                                           "kdf_too_weak",
                                           "not_fips"};

Bytes32 HashOf(const Bytes& bytes) {
  Bytes32 hash{};
  if (bytes.size() == hash.size()) std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

// KeyHashes: what a summary's header has in the place of its tokens' keys, in the order of FactsOf.
std::vector<Bytes32> KeyHashes(const envelope::PathRecord& path) {
  std::vector<Bytes32> hashes;
  const auto add = [&](const auto& record) { hashes.push_back(HashOf(record.spki)); };
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(&factor)) add(*rsa);
    if (const auto* ecdh = std::get_if<envelope::Pkcs11EcdhRecord>(&factor)) add(*ecdh);
    if (const auto* shares = std::get_if<envelope::SharesRecord>(&factor)) {
      for (const envelope::ShareMember& member : shares->members) std::visit(add, member.factor);
    }
  }
  return hashes;
}

bool HasShares(const envelope::Header& header) {
  return std::ranges::any_of(header.paths, [](const envelope::PathRecord& path) {
    return std::ranges::any_of(path.factors, [](const envelope::FactorRecord& factor) {
      return std::holds_alternative<envelope::SharesRecord>(factor);
    });
  });
}

policy::KeyFacts FactsOfSummary(const envelope::Header& header, const EnvelopeSummary& summary) {
  policy::KeyFacts key = policy::FactsOf(header);
  for (std::size_t i = 0; i < key.paths.size(); ++i) {
    policy::PathFacts& path = key.paths[i];
    const std::vector<Bytes32> hashes = KeyHashes(header.paths[i]);
    for (std::size_t j = 0; j < std::min(hashes.size(), path.tokens.size()); ++j) {
      path.tokens[j].spki_sha256 = hashes[j];
    }
    path.recovery_thumbprint = summary.recovery_keys[i].thumbprint;
  }
  return key;
}

// Stated: key and rule of each critical finding.
using Stated = std::set<std::pair<std::string, std::string>>;

Result<Stated> CriticalFindings(std::string_view status) {
  const auto json = ParsePackJson(status);
  PackFields fields(json);
  Stated stated;
  for (const auto& item : fields.List("findings")) {
    PackFields finding(item);
    if (finding.Text("severity") == "critical") {
      stated.emplace(finding.Text("key"), finding.Text("rule"));
    }
  }
  if (!fields.good()) return MisshapenPart("status.json");
  return stated;
}

}  // namespace

std::map<std::uint64_t, std::int64_t> NewestInUse(const Summaries& summaries,
                                                  const VersionLife& life) {
  struct Ends {
    std::pair<std::uint32_t, std::uint32_t> first;
    std::pair<std::uint32_t, std::uint32_t> last{};
    std::optional<std::uint64_t> newest;
    std::int64_t created = 0;
  };
  std::map<std::string, Ends> keys;
  for (const auto& [seq, summary] : summaries) {
    const std::pair at(summary.key_version, summary.revision);
    const auto [found, is_new] = keys.emplace(summary.key_name, Ends());
    Ends& ends = found->second;
    if (is_new || at < ends.first) {
      ends.first = at;
      ends.created = summary.created;
    }
    if (life.CountsInUse({summary.key_name, summary.key_version}) && at > ends.last) {
      ends.last = at;
      ends.newest = seq;
    }
  }
  std::map<std::uint64_t, std::int64_t> newest;
  for (const auto& [name, ends] : keys) {
    if (ends.newest) newest[*ends.newest] = ends.created;
  }
  return newest;
}

Result<PackPolicyCheck> HoldToPackPolicy(const report::TarReader& pack,
                                         const policy::Policy& policy, std::int64_t policy_set,
                                         std::int64_t now, const Summaries& summaries,
                                         const VersionLife& life, std::string_view status,
                                         audit::LogFindings& findings) {
  ASSIGN_OR_RETURN(const Stated stated, CriticalFindings(status));
  const std::map<std::uint64_t, std::int64_t> newest = NewestInUse(summaries, life);
  policy::Facts facts;
  facts.now = now;
  facts.policy_set = policy_set;
  PackPolicyCheck check;
  const auto hold = [&](std::string_view line) -> Status {
    ASSIGN_OR_RETURN(const EnvelopeSummary summary, ParseSummary(line));
    const auto found = newest.find(summary.log_seq);
    if (found == newest.end()) return Ok();
    const auto header = SummaryHeader(line);
    if (!header) {
      ++check.num_unknown;
      return Ok();
    }
    policy::KeyFacts key = FactsOfSummary(*header, summary);
    key.first_created = found->second;
    ++check.num_held;
    check.num_with_shares += HasShares(*header) ? 1U : 0U;
    for (const Finding& finding :
         EvaluateKey(policy, key, facts, {.shape_only = true, .as_enforced = false}).findings) {
      const bool held = std::find(std::begin(kHeldRules), std::end(kHeldRules), finding.rule) !=
                        std::end(kHeldRules);
      if (finding.severity != Severity::kCritical || !held) continue;
      if (stated.contains({key.name, finding.rule})) continue;
      findings.Add(LogFault::kNotCompliant, summary.log_seq,
                   fmt::format("{}: {}, and status.json does not say so", key.name, finding.what));
    }
    return Ok();
  };
  constexpr std::string_view kFolder = "summaries/";
  for (auto it = pack.members().lower_bound(std::string(kFolder));
       it != pack.members().end() && it->first.starts_with(kFolder); ++it) {
    ASSIGN_OR_RETURN(const std::string text, pack.Read(it->first));
    ASSIGN_OR_RETURN(const auto lines, SplitLines(text));
    for (const std::string_view line : lines) RETURN_IF_ERROR(hold(line));
  }
  return check;
}

}  // namespace keyescrow::agent
