// Drill statements: a text that parses is exactly the text that its statement is written as.
#include "envelope/drill.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 1536, .memory_mib = 32, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  feed(Bytes(3 << 20, '\n'));
  feed(Bytes(1024, '\n'));
  feed(AsBytes("keyescrow-drill/1\n" + std::string(1000, 'A')));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::envelope;
  const std::string_view text = AsText({data, size});
  const auto statement = ParseDrillStatement(text);
  if (!statement) {
    fuzz::CheckError(statement.error());
    return 0;
  }
  const auto written = FormatDrillStatement(*statement);
  FUZZ_CHECK(written && *written == text);
  FUZZ_CHECK(!VerifyDrill(*statement, Bytes64{}, Bytes32{1}));
  return 0;
}
