#include "agent/usecases/verify_pack.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

#include "agent/audit/proof.h"
#include "agent/policy/signature.h"
#include "agent/report/pack_manifest.h"
#include "agent/report/ustar.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/pack_log.h"
#include "agent/usecases/pack_policy.h"
#include "agent/usecases/pack_report.h"
#include "agent/usecases/registration_check.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

class PackVerifier {
 public:
  PackVerifier(const report::TarReader& pack, const VerifyPackRequest& request, Agent* agent,
               VerifyItem& item)
      : pack_(pack), request_(request), agent_(agent), item_(item) {}

  // Run returns an error where the request cannot be met; what was found is in the item.
  Status Run() {
    CheckMembers();
    Contents(CheckSignature(), LogFault::kPackSignature);
    // What follows reads what the agent signed, and nothing else.
    if (findings_.num_damages == 0) {
      RETURN_IF_ERROR(CheckContents());
    } else {
      item_.not_checked.emplace_back("what is in the pack: it is not what the agent signed");
    }
    SayNotChecked();
    AddFindings(findings_, "the evidence pack does not verify",
                "get the pack again from the host, and keep this one for the inquiry", item_);
    return Ok();
  }

 private:
  // Contents makes a check that failed a finding.
  void Contents(const Status& status, LogFault fault = LogFault::kPackContents) {
    if (!status) findings_.Add(fault, 0, status.error().message());
  }

  Status CheckContents() {
    PackLogOptions options{origin_, keys_,        anchor_keys_,   agents_,
                           size_,   std::nullopt, request_.sample};
    if (request_.sample != nullptr && !request_.sample->origin().empty() &&
        request_.sample->origin() != origin_) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "the challenge was drawn from another log: " + request_.sample->origin(),
                   "give the pack of that log, or draw from this one");
    }
    if (!request_.since.empty()) {
      ASSIGN_OR_RETURN(options.since, audit::OpenCheckpoint(request_.since, keys_));
    }
    PackLog log(pack_, std::move(options), findings_);
    const Status read = log.Verify();
    Contents(read);
    if (!read) return Ok();
    log.SayChecked(item_.checked, item_.not_checked);
    item_.num_envelopes = log.summaries().size();
    Contents(CheckKeys());
    Contents(CheckProofs(log));
    Contents(CheckPolicy(log));
    Contents(CheckLines("drills.jsonl", log.DrillLines()));
    Contents(CheckLines("anchors.jsonl", log.anchor_lines()));
    Contents(CheckStatus(log));
    Contents(CheckPackReport(pack_, log, item_.checked, item_.not_checked, findings_));
    if (request_.sample != nullptr) {
      request_.sample->Finish(log.summaries(), log.life(), findings_, item_.checked,
                              item_.not_checked);
    }
    return Ok();
  }

  void SayNotChecked() {
    auto& not_checked = item_.not_checked;
    not_checked.emplace_back(
        "the envelopes: they are not in the pack, so that nobody can guess passwords on them; that "
        "the summaries are theirs, the host's signature says");
    not_checked.emplace_back("that a path opens: that takes its factors");
    not_checked.emplace_back(
        "the policy's other rules (drills, rotation, and what devices are): status.json is the "
        "host's own judgement");
    not_checked.emplace_back(
        "what status.json says beside that: its findings, that a path is stale or unproven, "
        "numbers "
        "of versions, and what was checked for it, are the host's word");
    not_checked.emplace_back(
        "escrows of other tools, where there are any: they are listed as the host found them");
    not_checked.emplace_back("tokens' URIs, and the host's settings, which are not in the pack");
    not_checked.emplace_back("keys that nobody declared and nobody escrowed");
    not_checked.emplace_back(
        "what imported entries tell: nothing signed it before they were imported");
    if (request_.since.empty()) {
      not_checked.emplace_back(
          "a tail that was cut off with its checkpoints, or an old copy that was put back: compare "
          "with your own older checkpoint (--since FILE)");
    }
  }

  // CheckMembers holds each member against MANIFEST, in the archive's order.
  void CheckMembers() {
    // Each of its lines is of another member: a longer one is not read, let alone parsed.
    const auto listed = pack_.members().find(report::kManifest);
    if (listed != pack_.members().end() &&
        listed->second.size_bytes > report::kMaxManifestLineBytes * pack_.names().size()) {
      return findings_.Add(LogFault::kPackMember, 0, "MANIFEST names more files than there are");
    }
    const auto manifest = pack_.Read(report::kManifest);
    const auto lines = manifest ? report::ParseManifest(*manifest)
                                : Result<std::vector<report::ManifestLine>>(manifest.error());
    if (!lines) return findings_.Add(LogFault::kPackMember, 0, lines.error().message());
    std::vector<std::string_view> names;
    for (const report::ManifestLine& line : *lines) names.push_back(line.name);
    names.push_back(report::kManifest);
    names.push_back(report::kManifestSignature);
    if (names != pack_.names()) {
      findings_.Add(LogFault::kPackMember, 0, DescribeDifference(names));
    }
    for (const report::ManifestLine& line : *lines) {
      const auto bytes = pack_.Read(line.name);
      if (!bytes) {
        findings_.Add(LogFault::kPackMember, 0, bytes.error().message());
      } else if (ToHex(Sha256(AsBytes(*bytes))) != line.sha256_hex) {
        findings_.Add(LogFault::kPackMember, 0,
                      fmt::format("{} is not the file that MANIFEST names", line.name));
      }
    }
    item_.checked.push_back(Plural(lines->size(), "file", "files") + " against MANIFEST");
  }

  std::string DescribeDifference(const std::vector<std::string_view>& listed) const {
    const std::set<std::string_view> known(listed.begin(), listed.end());
    for (const std::string_view name : pack_.names()) {
      if (!known.contains(name)) return fmt::format("{} is not in MANIFEST", name);
    }
    return "the pack's files are not those of MANIFEST, or not in its order";
  }

  // Trust fills keys_, origin_ and anchor_keys_, and returns which keys must have signed.
  Result<std::vector<audit::NoteKey>> Trust() {
    TrustDocument document;
    if (request_.trust) {
      document = *request_.trust;
    } else {
      ASSIGN_OR_RETURN(const std::string text, pack_.Read("keys/agent-key.json"));
      ASSIGN_OR_RETURN(document, ParseAgentKeyDocument(text));
    }
    if (agent_ != nullptr && !request_.trust && request_.trusted_agent.empty() &&
        agent_->identity().origin == document.origin) {
      ASSIGN_OR_RETURN(document, ParseAgentKeyDocument(AgentKeyDocument(*agent_)));
      vouched_ = true;
    }
    if (document.log_keys.empty() || document.origin.empty()) {
      return report::PackDamaged("the file of the agent's keys names no log and no log keys");
    }
    keys_ = document.log_keys;
    agents_.push_back(document.thumbprint);
    if (!request_.trusted_agent.empty()) agents_.push_back(request_.trusted_agent);
    origin_ = document.origin;
    if (document.anchor) anchor_keys_.push_back(*document.anchor);
    vouched_ = vouched_ || request_.trust || !request_.trusted_agent.empty();
    if (!vouched_) {
      findings_.Add(LogFault::kPackUnvouched, 0,
                    fmt::format("nobody vouched for the agent key {}", document.thumbprint));
    }
    if (request_.trust || request_.trusted_agent.empty()) return keys_;
    if (document.thumbprint != request_.trusted_agent) {
      return report::PackDamaged("the pack is of the agent " + document.thumbprint);
    }
    std::vector<audit::NoteKey> must;
    for (const audit::NoteKey& key : keys_) {
      if (key.p256 && JwkThumbprint(*key.p256) == document.thumbprint) must.push_back(key);
    }
    return must;
  }

  Status CheckSignature() {
    ASSIGN_OR_RETURN(const std::vector<audit::NoteKey> must, Trust());
    ASSIGN_OR_RETURN(const std::string bytes, pack_.Read(report::kManifestSignature));
    ASSIGN_OR_RETURN(const std::string manifest, pack_.Read(report::kManifest));
    const auto note = audit::ParseNote(bytes);
    const auto verified =
        note ? audit::VerifyNote(*note, keys_) : Result<std::vector<bool>>(note.error());
    if (!verified) return report::PackDamaged("MANIFEST.sig: " + verified.error().message());
    std::size_t num_signers = 0;
    bool trusted = false;
    bool by_log = false;
    bool by_agent = false;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (!(*verified)[i]) continue;
      ++num_signers;
      by_log = by_log || keys_[i].ed25519.has_value();
      by_agent = by_agent || keys_[i].p256.has_value();
      trusted = trusted || std::any_of(must.begin(), must.end(), [&](const audit::NoteKey& key) {
                  return key.Vkey() == keys_[i].Vkey();
                });
    }
    if (!trusted || !by_log) {
      return report::PackDamaged("MANIFEST.sig is not of the keys that are trusted");
    }
    ASSIGN_OR_RETURN(const report::PackStatement statement, report::ParsePackStatement(note->text));
    if (statement.manifest_sha256 != Sha256(AsBytes(manifest))) {
      return report::PackDamaged("MANIFEST is not the one that was signed");
    }
    if (statement.origin != origin_) {
      return report::PackDamaged("the pack is of another log than the key that is trusted");
    }
    if (statement.time != pack_.time()) {
      return report::PackDamaged("the archive is of another time than MANIFEST.sig");
    }
    size_ = statement.log_size;
    if (!by_agent) {
      findings_.Add(LogFault::kMissingP256, size_,
                    "the agent key did not sign MANIFEST, the log's key did");
    }
    item_.checked.push_back("MANIFEST.sig of " + FormatUtc(statement.time) + ", by " +
                            Plural(num_signers, "key", "keys"));
    return Ok();
  }

  // CheckKeys: those in the pack authenticate nothing, and must still be the log's own.
  Status CheckKeys() {
    ASSIGN_OR_RETURN(const std::string text, pack_.Read("keys/agent-key.json"));
    ASSIGN_OR_RETURN(const TrustDocument document, ParseAgentKeyDocument(text));
    ASSIGN_OR_RETURN(const std::string vkeys, pack_.Read("keys/log.vkeys"));
    std::string trusted;
    std::string stated;
    for (const audit::NoteKey& key : keys_) trusted += key.Vkey() + "\n";
    for (const audit::NoteKey& key : document.log_keys) stated += key.Vkey() + "\n";
    if (document.thumbprint != agents_.front() || document.origin != origin_ || stated != trusted ||
        vkeys != trusted) {
      return report::PackDamaged("the keys in keys/ are not those of the log");
    }
    return Ok();
  }

  Status CheckProofs(const PackLog& log) {
    std::set<std::uint64_t> proven;
    for (auto it = pack_.members().lower_bound("proofs/");
         it != pack_.members().end() && it->first.starts_with("proofs/"); ++it) {
      ASSIGN_OR_RETURN(const std::string text, pack_.Read(it->first));
      ASSIGN_OR_RETURN(const audit::TlogProof proof, audit::ParseTlogProof(text));
      if (it->first != ProofMember(proof.index) || proof.checkpoint != log.checkpoint() ||
          !audit::VerifyInclusion(audit::LeafHash(proof.extra), proof.index, size_, proof.hashes,
                                  log.root())) {
        return report::PackDamaged(it->first + " does not prove its entry");
      }
      proven.insert(proof.index);
    }
    for (const auto& [key, seq] : NewestOfVersions(log.summaries())) {
      if (!proven.contains(seq)) {
        return report::PackDamaged(
            fmt::format("the escrow of {} version {} has no proof", key.first, key.second));
      }
    }
    item_.checked.push_back(Plural(proven.size(), "inclusion proof", "inclusion proofs"));
    return Ok();
  }

  Status CheckPolicy(const PackLog& log) {
    const std::vector<audit::EventPolicy>& policies = log.policies();
    ASSIGN_OR_RETURN(const std::string json, pack_.Read("policy/policy.json"));
    ASSIGN_OR_RETURN(const std::string text, pack_.Read("policy/policy.toml"));
    ASSIGN_OR_RETURN(const PolicyFacts facts, ParsePolicyFacts(json));
    if (Sha256(AsBytes(text)) != facts.sha256) {
      return report::PackDamaged("policy/policy.toml is not that of policy/policy.json");
    }
    const auto logged =
        std::find_if(policies.rbegin(), policies.rend(), [&](const audit::EventPolicy& policy) {
          return policy.id == facts.name && policy.serial == facts.serial &&
                 policy.sha256 == facts.sha256;
        });
    if (facts.serial == 0 ? !policies.empty() : logged == policies.rend()) {
      return report::PackDamaged("the log does not tell of the policy in policy/");
    }
    if (facts.serial != 0 && logged != policies.rbegin()) {
      findings_.Add(LogFault::kNotCompliant, 0,
                    "a policy that was set later than the one in policy/ is not in force");
    }
    if (facts.serial != 0) {
      RETURN_IF_ERROR(CheckPolicySignature(text, facts));
      RETURN_IF_ERROR(CheckPolicyEntry(log, facts));
    }
    item_.checked.push_back(fmt::format("the policy {} serial {}", facts.name, facts.serial));
    return HoldToPolicy(log, text, facts);
  }

  Status HoldToPolicy(const PackLog& log, const std::string& text, const PolicyFacts& facts) {
    const auto policy = policy::ParsePolicy(text, "policy/policy.toml");
    if (!policy && policy.error().code() == ErrorCode::kPolicyNewerAgent) {
      item_.not_checked.emplace_back("the paths against the policy: it asks for a newer keyescrow");
      return Ok();
    }
    if (!policy) return report::PackDamaged(policy.error().message());
    ASSIGN_OR_RETURN(const std::string status, pack_.Read("status.json"));
    ASSIGN_OR_RETURN(const PackPolicyCheck check,
                     HoldToPackPolicy(pack_, *policy, facts.set_time, pack_.time(), log.summaries(),
                                      log.life(), status, findings_));
    item_.checked.push_back(
        "the paths of " + Plural(check.num_held, "key", "keys") +
        " against require, forbid, portable, survive, withstand, kdf, fips and pins of the policy, "
        "as the log's entries tell them: the envelopes are not in this pack");
    if (check.num_with_shares > 0) {
      item_.not_checked.push_back("who the officers of " +
                                  Plural(check.num_with_shares, "key", "keys") +
                                  " are: entries tell how many, the summaries alone tell whom");
    }
    if (check.num_unknown > 0) {
      item_.not_checked.push_back("the paths of " + Plural(check.num_unknown, "key", "keys") +
                                  " against the policy: the members of shares are not told");
    }
    return Ok();
  }

  // CheckPolicyEntry: what the entry tells that set the policy. A pack's own list of who may sign
  // proves nothing by itself, and from when it was set the graces run.
  Status CheckPolicyEntry(const PackLog& log, const PolicyFacts& facts) {
    ASSIGN_OR_RETURN(const std::string signers, pack_.Read("policy/signers"));
    for (const PolicySet& set : log.policy_sets()) {
      if (set.serial != facts.serial || set.sha256 != facts.sha256) continue;
      if (!set.signers.empty() && set.signers != PolicySigners(signers)) {
        return report::PackDamaged("policy/signers is not what the entry of the policy says");
      }
      if (std::llabs(set.time - facts.set_time) > kProofToleranceSeconds) {
        return report::PackDamaged(fmt::format(
            "policy/policy.json says that the policy was set at {}, and entry {} sets it "
            "at {}",
            FormatUtc(facts.set_time), set.seq, FormatUtc(set.time)));
      }
    }
    return Ok();
  }

  Status CheckPolicySignature(const std::string& text, const PolicyFacts& facts) {
    ASSIGN_OR_RETURN(const std::string note, pack_.Read("policy/policy.toml.sig"));
    ASSIGN_OR_RETURN(const std::string signers_text, pack_.Read("policy/signers"));
    const auto signers = policy::ParseSigners(signers_text);
    if (!signers) return report::PackDamaged("policy/signers does not parse");
    // Of a policy for a newer keyescrow too, whose rules are not read.
    ASSIGN_OR_RETURN(const policy::Policy policy, policy::ParsePolicyHead(text, "policy"));
    if (policy.name != facts.name || policy.serial != facts.serial) {
      return report::PackDamaged("policy/policy.toml is not that of policy/policy.json");
    }
    return policy::VerifySignature(policy, note, *signers);
  }

  Status CheckLines(std::string_view name, const std::string& expected) {
    ASSIGN_OR_RETURN(const std::string text, pack_.Read(name));
    if (text != expected) {
      return report::PackDamaged(fmt::format("{} is not what the entries say", name));
    }
    return Ok();
  }

  Status CheckStatus(const PackLog& log) {
    ASSIGN_OR_RETURN(const std::string inventory, pack_.Read("inventory.json"));
    ASSIGN_OR_RETURN(const std::string status, pack_.Read("status.json"));
    ASSIGN_OR_RETURN(const PackStatus found, ComparePackStatus(inventory, status, log.checkpoint(),
                                                               log.summaries(), log.life()));
    for (const std::string& name : found.not_escrowed) {
      findings_.Add(LogFault::kNotEscrowed, 0, name + " is declared and not escrowed");
    }
    if (found.num_critical > 0) {
      findings_.Add(LogFault::kNotCompliant, 0,
                    "the host does not comply: status.json states " +
                        Plural(found.num_critical, "critical finding", "critical findings"));
    }
    item_.checked.push_back(fmt::format("inventory and status: {} escrowed, {} declared",
                                        Plural(found.num_escrowed, "key", "keys"),
                                        found.num_declared));
    return Ok();
  }

  const report::TarReader& pack_;
  const VerifyPackRequest& request_;
  Agent* agent_;
  VerifyItem& item_;
  audit::LogFindings findings_;
  std::vector<audit::NoteKey> keys_;
  std::vector<envelope::AnchorKey> anchor_keys_;
  std::vector<std::string> agents_;
  std::string origin_;
  bool vouched_ = false;
  std::uint64_t size_ = 0;
};

std::string PathOf(std::string_view name_or_file) {
  if (name_or_file.starts_with("file:")) name_or_file.remove_prefix(5);
  return std::string(name_or_file);
}

}  // namespace

VerifyItem VerifyPack(Agent* agent, const VerifyPackRequest& request) {
  VerifyItem item;
  item.what = "pack " + request.file;
  const auto pack = OpenPack(request.file);
  Status status;
  if (!pack) {
    status = pack.error();
  } else {
    status = PackVerifier(*pack, request, agent, item).Run();
  }
  if (!status) item.error = std::move(status).error();
  return item;
}

Result<report::TarReader> OpenPack(const std::string& name_or_file) {
  return report::TarReader::Open(PathOf(name_or_file));
}

bool IsPack(const std::string& name_or_file) { return report::IsTar(PathOf(name_or_file)); }

}  // namespace keyescrow::agent
