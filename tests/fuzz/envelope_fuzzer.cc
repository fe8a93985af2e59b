// A whole envelope file. No input is signed by anybody we trust, and none opens.
#include "envelope/sealed_envelope.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

// 3 MiB of text, its parts decoded beside it, and the outer JSON's values up to their cap.
const Limits kLimits{.max_len = 65536, .memory_mib = 96, .cpu_s = 3};

void Prepare() {}

void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = envelope::kMaxFileSizeBytes;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string values = R"({"payload":[)";
  while (values.size() < kSize - 8) values += "0,";
  feed_text(values + "0]}");
  std::string members = "{";
  for (int number = 0; members.size() < kSize - 14; ++number) {
    members += "\"" + std::to_string(number) + "\":0,";
  }
  feed_text(members + "\"\":0}");
  feed_text(R"({"payload":")" + std::string(kSize - 14, 'A') + "\"}");
  const std::string protected_header(kSize / 2, 'A');
  feed_text(R"({"payload":"AAAA","protected":")" + protected_header + R"(","signature":"AAAA"})");
  feed(Bytes(kSize + 1, '['));
  feed(Bytes(64 << 20, ' '));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::envelope;
  FUZZ_CHECK(!SealedEnvelope::Read({data, size}, {}));
  const auto sealed =
      SealedEnvelope::Read({data, size}, {.trusted = {}, .accept_unknown_agent = true});
  if (!sealed) {
    fuzz::CheckError(sealed.error());
    const Failure failure = sealed.error().failure();
    FUZZ_CHECK(failure == Failure::kFormat || failure == Failure::kLimit ||
               failure == Failure::kSignature);
    return 0;
  }
  FUZZ_CHECK(!sealed->agent_trusted() && size <= kMaxFileSizeBytes);
  const auto secret = SecretBytes::CopyOf(Bytes(32, 1));
  for (std::size_t index = 0; index < sealed->header().paths.size(); ++index) {
    const std::vector<const SecretBytes*> secrets(sealed->header().paths[index].factors.size(),
                                                  &*secret);
    FUZZ_CHECK(!sealed->Open(index, secrets));
  }
  return 0;
}
