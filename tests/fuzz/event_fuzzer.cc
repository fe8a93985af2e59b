// Audit events: a line that parses is exactly the line that its event is written as.
#include "agent/audit/event.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 3072, .memory_mib = 32, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  feed(Bytes(3 << 20, '['));
  feed(Bytes(agent::audit::kMaxEventBytes, '['));
  feed(Bytes(agent::audit::kMaxEventBytes, '{'));
  feed(AsBytes("\xff" + std::string(1 << 20, '\x01')));
}

namespace {

using namespace agent::audit;

// Any texts at all become an event that is kept whole or cut, and reads back as it was kept.
void WriteTexts(Input input) {
  Event event;
  event.source = std::string(AsText(input.Field().first(0))) + "keyescrow.log/db1/x";
  event.type = static_cast<EventType>(input.U8() % 8);
  event.outcome = static_cast<Outcome>(input.U8() % 3);
  event.time = input.U32();
  event.host = std::string(AsText(input.Field()));
  event.boot_id = std::string(AsText(input.Field()));
  event.error = std::string(AsText(input.Field()));
  event.reason = std::string(AsText(input.Field()));
  event.ticket = std::string(AsText(input.Field()));
  event.actor = Actor{input.U32(), input.U32(), std::string(AsText(input.Field())), 1,
                      std::string(AsText(input.Field()))};
  event.approvers = {std::string(AsText(input.Field()))};
  event.key = EventKey{std::string(AsText(input.Field())), 1};
  event.paths = {{std::string(AsText(input.Field())),
                  {{"password", "", std::nullopt, std::string(AsText(input.Field()))}}}};
  const auto line = SerializeEvent(event);
  if (!line) return CheckError(line.error());
  FUZZ_CHECK(line->size() <= kMaxEventBytes && line->find('\n') == std::string::npos);
  const auto again = ParseEvent(*line);
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(*SerializeEvent(*again) == *line);
}

}  // namespace
}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::agent::audit;
  const std::string_view line = AsText({data, size});
  const auto event = ParseEvent(line);
  if (event) {
    const auto written = SerializeEvent(*event);
    FUZZ_CHECK(written && *written == line);
  } else {
    fuzz::CheckError(event.error());
    if (size > 0 && data[0] == 0xff) fuzz::WriteTexts(fuzz::Input(data + 1, size - 1));
  }
  return 0;
}
