// Path expressions and options: the canonical text parses to the same expression, and is a fixed
// point; patterns for names come along.
#include "envelope/header.h"
#include "envelope/path_expression.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 1024, .memory_mib = 16, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string factors = "password";
  std::string members = "2 of (token:a";
  std::string stars = "\n";
  while (factors.size() < 128 << 10) factors += " & token:a";
  while (members.size() < 128 << 10) members += ", token:b";
  while (stars.size() < 1000) stars += "*a";
  feed_text(factors);
  feed_text(members + ")");
  feed_text(stars + "b\n" + std::string(1000, 'a'));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::envelope;
  fuzz::Input input(data, size);
  const std::string_view text = input.Line();
  if (const auto expression = ParsePathExpression(text)) {
    FUZZ_CHECK(!expression->factors.empty() && expression->factors.size() <= 4);
    const std::string canonical = FormatPathExpression(*expression);
    const auto again = ParsePathExpression(canonical);
    FUZZ_CHECK(again && *again == *expression && FormatPathExpression(*again) == canonical);
    FUZZ_CHECK(IsPathId(DefaultPathId(*expression)));
  } else {
    fuzz::CheckError(expression.error());
  }
  if (const auto option = ParsePathOption(text)) {
    FUZZ_CHECK(IsPathId(option->id));
    const auto again = ParsePathOption(option->id + "=" + FormatPathExpression(option->expression));
    FUZZ_CHECK(again && again->id == option->id && again->expression == option->expression);
  } else {
    fuzz::CheckError(option.error());
  }
  const std::string texts[] = {std::string(text), std::string(input.Line())};
  if (const auto options = ParsePathOptions(texts); !options) fuzz::CheckError(options.error());
  // Patterns are an admin's and names an envelope's.
  if (NamePatternMatches(texts[1], AsText(input.rest())))
    FUZZ_CHECK(!texts[1].empty() || input.empty());
  return 0;
}
