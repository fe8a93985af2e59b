// The header's text: what parses is written to a text that parses to the same header.
#include "envelope/header.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 32768, .memory_mib = 64, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = 256 << 10;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string paths = R"({"format":"keyescrow/1","paths":[)";
  std::string members = "{";
  while (paths.size() < kSize - 4) paths += "{},";
  for (int number = 0; members.size() < kSize - 12; ++number) {
    members += "\"" + std::to_string(number) + "\":0,";
  }
  feed_text(paths + "{}]}");
  feed_text(members + "\"\":0}");
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::envelope;
  const std::string_view text = AsText({data, size});
  const auto header = ParseHeader(text);
  if (!header) {
    fuzz::CheckError(header.error());
    FUZZ_CHECK(header.error().failure() == Failure::kFormat ||
               header.error().failure() == Failure::kLimit);
    return 0;
  }
  FUZZ_CHECK(text.size() <= kMaxHeaderSizeBytes);
  FUZZ_CHECK(IsKeyName(header->key_name));
  FUZZ_CHECK(!header->paths.empty() && header->paths.size() <= kMaxPaths);
  for (const PathRecord& path : header->paths) {
    FUZZ_CHECK(IsName(path.id, 16) && header->FindPath(path.id) == &path);
    FUZZ_CHECK(path.factors.size() <= kMaxFactors);
    FactorTypes(path.factors);
    PathBinding(*header, path);
    for (const FactorRecord& factor : path.factors) {
      if (const auto* password = std::get_if<PasswordRecord>(&factor)) {
        FUZZ_CHECK(CheckKdfParameters(password->kdf).has_value());
      }
    }
  }
  const std::string written = WriteHeader(*header);
  const auto again = ParseHeader(written);
  FUZZ_CHECK(again.has_value());
  FUZZ_CHECK(WriteHeader(*again) == written);
  return 0;
}
