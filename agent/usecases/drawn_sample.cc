#include "agent/usecases/drawn_sample.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "agent/usecases/number_text.h"
#include "agent/usecases/pack_policy.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

std::set<Bytes32> AskedKeys(const audit::Challenge& challenge) {
  std::set<Bytes32> keys;
  for (const envelope::TokenRecord& token : challenge.tokens) {
    keys.insert(std::visit([](const auto& record) { return Sha256(record.spki); }, token));
  }
  return keys;
}

// NewestEnvelopes: of each version, the summary of its newest revision; under version 0 that of the
// version in use.
std::map<KeyVersion, const EnvelopeSummary*> NewestEnvelopes(const Summaries& summaries,
                                                             const VersionLife& life) {
  std::map<KeyVersion, const EnvelopeSummary*> newest;
  for (const auto& [version, seq] : NewestOfVersions(summaries)) {
    newest[version] = &summaries.at(seq);
  }
  for (const auto& [seq, created] : NewestInUse(summaries, life)) {
    const EnvelopeSummary& summary = summaries.at(seq);
    newest[{summary.key_name, 0}] = &summary;
  }
  return newest;
}

}  // namespace

Result<DrawnSample> DrawnSample::Make(audit::Challenge challenge,
                                      std::optional<AnswersOfTokens> answers) {
  if (challenge.drawn.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the challenge draws no keys: there is nothing to look for",
                 "give one that 'keyescrow audit sample' wrote");
  }
  if (answers) {
    std::set<Bytes32> known;
    for (const audit::TokenAnswer& row : answers->expected.answers) known.insert(row.key_sha256);
    if (answers->expected.nonce != challenge.nonce || known != AskedKeys(challenge)) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "the expected answers do not belong to the challenge",
                   "give the two files that one 'keyescrow audit sample' wrote");
    }
  }
  return DrawnSample(std::move(challenge), std::move(answers));
}

void DrawnSample::Notice(std::uint64_t seq, const audit::Event& event) {
  if (event.drill->challenge != challenge_.nonce) return;
  proofs_[{{event.key->name, event.key->version}, event.paths.front().id}]
         [event.envelope->revision] = seq;
}

std::optional<std::size_t> DrawnSample::CheckDrawn(const audit::DrawnPath& drawn,
                                                   const EnvelopeSummary* newest,
                                                   const VersionLife& life,
                                                   audit::LogFindings& findings) const {
  const auto missing = [&](std::uint64_t seq, const std::string& what) {
    findings.Add(LogFault::kSampleUnproven, seq, what);
    return std::nullopt;
  };
  if (newest == nullptr) {
    const auto destroyed = life.destroyed().find({drawn.key_name, drawn.key_version});
    const bool is_gone = destroyed != life.destroyed().end();
    const std::string which = drawn.key_version == 0
                                  ? drawn.key_name
                                  : fmt::format("{} version {}", drawn.key_name, drawn.key_version);
    if (!is_gone) return missing(0, which + " was drawn, and the pack has no envelope of it");
    return missing(destroyed->second,
                   fmt::format("{} was drawn, and entry {} destroys it", which, destroyed->second));
  }
  const KeyVersion version(newest->key_name, newest->key_version);
  std::size_t num_proven = 0;
  std::size_t num_paths = 0;
  for (const audit::EventPath& path : newest->paths) {
    if (!drawn.path_id.empty() && drawn.path_id != path.id) continue;
    ++num_paths;
    const std::string which =
        fmt::format("{} version {}, path {}", version.first, version.second, path.id);
    const auto proof = proofs_.find({version, path.id});
    if (proof == proofs_.end()) {
      missing(0, which + ", was not opened under the challenge");
    } else if (!proof->second.contains(newest->revision)) {
      const auto& [revision, seq] = *proof->second.rbegin();
      missing(seq, fmt::format("{}, was opened under the challenge as revision {}, and is revision "
                               "{} now",
                               which, revision, newest->revision));
    } else {
      ++num_proven;
    }
  }
  if (num_paths == 0) {
    return missing(0, fmt::format("{} version {} has no path {}, which was drawn", version.first,
                                  version.second, drawn.path_id));
  }
  return num_proven == num_paths ? std::optional(num_proven) : std::nullopt;
}

void DrawnSample::Finish(const Summaries& summaries, const VersionLife& life,
                         audit::LogFindings& findings, std::vector<std::string>& checked,
                         std::vector<std::string>& not_checked) const {
  const auto newest = NewestEnvelopes(summaries, life);
  std::map<KeyVersion, std::optional<std::size_t>> proven;  // nothing where one does not hold
  for (const audit::DrawnPath& drawn : challenge_.drawn) {
    const KeyVersion version(drawn.key_name, drawn.key_version);
    const auto found = newest.find(version);
    if (found == newest.end() && proven.contains(version)) continue;  // told once
    const auto num_proven =
        CheckDrawn(drawn, found == newest.end() ? nullptr : found->second, life, findings);
    std::optional<std::size_t>& of_key = proven.try_emplace(version, 0).first->second;
    of_key = of_key && num_proven ? std::optional(*of_key + *num_proven) : std::nullopt;
  }
  std::size_t num_whole = 0;
  std::size_t num_paths = 0;
  for (const auto& [version, num_proven] : proven) {
    num_whole += num_proven ? 1U : 0U;
    num_paths += num_proven.value_or(0);
  }
  checked.push_back(fmt::format(
      "the sample of {}: of {} drawn, {} opened by all their drawn paths ({}) under its challenge",
      FormatUtc(challenge_.created), Plural(proven.size(), "key", "keys"), num_whole, num_paths));
  if (challenge_.tokens.empty()) return;
  const std::string tokens = Plural(challenge_.tokens.size(), "token", "tokens");
  if (!answers_) {
    not_checked.push_back("the answers of " + tokens +
                          " to the challenge: give --expected and --answers");
    return;
  }
  for (std::string& fault : audit::AnswerFaults(answers_->expected, answers_->given)) {
    findings.Add(LogFault::kSampleAnswer, 0, std::move(fault));
  }
  checked.push_back("the answers of " + tokens + " to the challenge");
}

}  // namespace keyescrow::agent
