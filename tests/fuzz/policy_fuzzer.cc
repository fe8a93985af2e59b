// Policies: any text is a policy or an error with a line. What was read can be evaluated, and its
// signers survive their text.
#include "agent/policy/evaluate.h"
#include "agent/policy/policy.h"
#include "agent/policy/signature.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 8192, .memory_mib = 96, .cpu_s = 4};
void Prepare() {}

namespace {

constexpr char kHead[] = "[policy]\nname='a'\nserial=1\nmode='report'\n";

}  // namespace

void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = 250 << 10;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string rules = kHead;
  for (int number = 0; number < 256; ++number) {
    rules += "[[rule]]\nname='" + std::to_string(number) + "'\nmatch='" +
             std::string(60, '*').replace(1, 1, "a") + "'\n";
  }
  feed_text(rules);
  std::string required = kHead;
  for (int number = 0; number < 64; ++number) {
    required +=
        "[[rule]]\nname='" + std::to_string(number) +
        "'\nmatch='a*b*c*d*e*f*g*h*'\nrequire=['token:a & token:b & token:c']\nwithstand=2\n";
  }
  feed_text(required);
  feed_text("a=" + std::string(kSize, '['));
  std::string parts;
  while (parts.size() < kSize) parts += "a.";
  feed_text("[" + parts + "a]");
  feed_text(std::string(kHead) + "[[rule]]\nname='a'\nmatch='**'\nticket='" +
            std::string(120, '(') + "a" + std::string(120, ')') + "'\n");
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::agent;
  const std::string_view text = AsText({data, size});
  const auto head = policy::ParsePolicyHead(text, "policy.toml");
  if (!head) fuzz::CheckError(head.error());
  const auto parsed = policy::ParsePolicy(text, "policy.toml");
  if (!parsed) {
    fuzz::CheckError(parsed.error());
    const ErrorCode code = parsed.error().code();
    FUZZ_CHECK(code == ErrorCode::kPolicyInvalid || code == ErrorCode::kPolicyContradiction ||
               code == ErrorCode::kPolicyNewerAgent);
    return 0;
  }
  FUZZ_CHECK(head && head->name == parsed->name && head->serial == parsed->serial &&
             head->sha256 == parsed->sha256);
  FUZZ_CHECK(!parsed->rules.empty() && parsed->serial > 0);
  if (parsed->signers) {
    const auto again = policy::ParseSigners(policy::FormatSigners(*parsed->signers));
    FUZZ_CHECK(again && again->threshold == parsed->signers->threshold &&
               again->keys.size() == parsed->signers->keys.size());
  }
  policy::KeyFacts key;
  key.name = "prod/db";
  key.host = "db1";
  policy::PathFacts& path = key.paths.emplace_back();
  path.id = "token-ops";
  path.expression = *envelope::ParsePathExpression("password & token:ops");
  path.kdf = envelope::Argon2idParameters{};
  path.tokens.push_back({"ops", {}});
  policy::Facts facts;
  facts.host = "db1";
  const policy::Evaluation evaluation = policy::EvaluateKey(*parsed, key, facts);
  for (const Finding& finding : evaluation.findings) {
    FUZZ_CHECK(finding.key == key.name && !finding.what.empty() && !finding.remedy.empty());
  }
  for (const policy::Rule& rule : parsed->rules) {
    if (!rule.ticket.empty()) (void)policy::TicketMatches(rule.ticket, "INC-4711");
    for (const policy::Rule& other : parsed->rules) {
      if (policy::PatternsMeet(rule.match, other.match)) continue;
      FUZZ_CHECK(!(envelope::NamePatternMatches(rule.match, key.name) &&
                   envelope::NamePatternMatches(other.match, key.name)));
    }
  }
  return 0;
}
