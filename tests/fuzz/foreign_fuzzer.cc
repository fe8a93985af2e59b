// What other tools escrowed: a compact JWE of clevis, or a token of a LUKS2 header. What is read of
// it is kept as text, and read again from there.
#include "agent/usecases/foreign_pins.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {
namespace {

// Limits of its own: sets over 16 factors, twice 2^16 of them.
void CheckPins(const agent::ForeignPin& pin, const std::vector<unsigned>& slots) {
  const std::string expression = agent::ForeignExpression(pin);
  for (const char c : expression) FUZZ_CHECK(c >= 0x20 && c < 0x7f);
  agent::ForeignPin again;
  std::vector<unsigned> slots_again;
  agent::ReadForeignPins(agent::WriteForeignPins(pin, slots), again, slots_again);
  FUZZ_CHECK(agent::ForeignExpression(again) == expression && slots_again == slots);
  const auto answer = agent::ForeignRecoverability(pin);
  if (!answer || answer->open) return;
  FUZZ_CHECK(!answer->losses.empty() && !answer->thefts.empty());
  FUZZ_CHECK(answer->losses.front().size() == answer->survives + 1);
  FUZZ_CHECK(answer->thefts.front().size() == answer->withstands + 1);
}

}  // namespace

const Limits kLimits{.max_len = 16384, .memory_mib = 64, .cpu_s = 5};
void Prepare() {}

void VisitLargest(Feed feed) {
  feed(AsBytes("{\"type\":\"clevis\",\"keyslots\":[" + std::string(1 << 18, '[')));
  std::string members = "{";
  for (int i = 0; members.size() < 255 << 10; ++i) members += "\"" + std::to_string(i) + "\":{},";
  feed(AsBytes(members + "\"type\":\"systemd-recovery\",\"keyslots\":[]}"));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  const std::string_view text = AsText({data, size});
  if (const auto jwe = agent::ParseClevisJwe(text)) {
    fuzz::CheckPins(jwe->opens_by, jwe->slots);
  } else {
    fuzz::CheckError(jwe.error());
  }
  const auto token = agent::ParseLuksTokenJson(0, text);
  if (!token) fuzz::CheckError(token.error());
  if (token && *token) fuzz::CheckPins((*token)->opens_by, (*token)->slots);
  return 0;
}
