// Base64 and base64url: what decodes is canonical, so encoding it again gives the same text.
#include "envelope/base/base64url.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 4096, .memory_mib = 16, .cpu_s = 2};
void Prepare() {}
void VisitLargest(Feed feed) { feed(Bytes(3 << 20, 'A')); }

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  const std::string_view text = AsText({data, size});
  if (const auto bytes = DecodeBase64Url(text)) FUZZ_CHECK(EncodeBase64Url(*bytes) == text);
  if (const auto bytes = DecodeBase64(text)) FUZZ_CHECK(EncodeBase64(*bytes) == text);
  if (size <= 1 << 16) {
    const ByteView raw(data, size);
    FUZZ_CHECK(DecodeBase64Url(EncodeBase64Url(raw)) == ToBytes(raw));
    FUZZ_CHECK(DecodeBase64(EncodeBase64(raw)) == ToBytes(raw));
  }
  return 0;
}
