// An auditor's sample, held against an evidence pack: was each path that was drawn opened under the
// challenge, and did each token answer its nonce? agent/report/FORMAT.md, "A sample".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/audit/challenge.h"
#include "agent/audit/event.h"
#include "agent/audit/log_faults.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/version_life.h"

namespace keyescrow::agent {

// AnswersOfTokens: those that the auditor kept, and those that the host's drill wrote.
struct AnswersOfTokens {
  audit::TokenAnswers expected;
  audit::TokenAnswers given;
};

class DrawnSample {
 public:
  // Make. Errors: kUsage where the challenge draws nothing, or the expected answers are not those
  // of its tokens.
  static Result<DrawnSample> Make(audit::Challenge challenge,
                                  std::optional<AnswersOfTokens> answers);

  const std::string& origin() const { return challenge_.origin; }  // of the log; "": any

  // Notice takes an entry whose proof of a path holds.
  void Notice(std::uint64_t seq, const audit::Event& event);

  // Finish makes a finding of each drawn path that was not opened under the challenge, as the
  // newest envelope of its version has it, and of each answer that is missing or wrong.
  void Finish(const Summaries& summaries, const VersionLife& life, audit::LogFindings& findings,
              std::vector<std::string>& checked, std::vector<std::string>& not_checked) const;

 private:
  using PathOfVersion = std::pair<KeyVersion, std::string>;

  DrawnSample(audit::Challenge challenge, std::optional<AnswersOfTokens> answers)
      : challenge_(std::move(challenge)), answers_(std::move(answers)) {}

  // CheckDrawn returns how many of the row's paths hold; nothing where one does not.
  std::optional<std::size_t> CheckDrawn(const audit::DrawnPath& drawn,
                                        const EnvelopeSummary* newest, const VersionLife& life,
                                        audit::LogFindings& findings) const;

  audit::Challenge challenge_;
  std::optional<AnswersOfTokens> answers_;
  // Under the challenge: by revision, the newest entry.
  std::map<PathOfVersion, std::map<std::uint32_t, std::uint64_t>> proofs_;
};

}  // namespace keyescrow::agent
