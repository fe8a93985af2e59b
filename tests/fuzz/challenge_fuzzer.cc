// Challenges of auditors and answers of tokens: what parses is written and read back the same.
#include "agent/audit/challenge.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 4096, .memory_mib = 64, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  feed(Bytes(4 << 20, '['));
  feed(Bytes(3 << 20, '{'));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::agent::audit;
  const std::string_view file = AsText({data, size});
  const auto challenge = ParseChallenge(file);
  if (challenge) {
    const auto written = FormatChallenge(*challenge);
    FUZZ_CHECK(written.has_value());
    const auto again = ParseChallenge(*written);
    FUZZ_CHECK(again && again->drawn == challenge->drawn && again->nonce == challenge->nonce);
    FUZZ_CHECK(*FormatChallenge(*again) == *written);
  } else {
    fuzz::CheckError(challenge.error());
  }
  const auto answers = ParseTokenAnswers(file);
  if (!answers) {
    fuzz::CheckError(answers.error());
    return 0;
  }
  const auto again = ParseTokenAnswers(FormatTokenAnswers(*answers));
  FUZZ_CHECK(again && again->answers == answers->answers);
  // The first row of a key is its own answer; another of the same key need not be.
  const std::size_t num_faults = AnswerFaults(*answers, *answers).size();
  FUZZ_CHECK(answers->answers.empty() ? num_faults == 0 : num_faults < answers->answers.size());
  return 0;
}
