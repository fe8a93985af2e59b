// PKCS#11 URIs, stored and typed. What may be stored is what may be typed without a query.
#include "envelope/pkcs11_uri.h"
#include "hsm/uri.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 2048, .memory_mib = 16, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  std::string text = "pkcs11:token=a?";
  while (text.size() < 128 << 10) text += "module-path=%41&";
  feed(AsBytes(text));
  feed(AsBytes("pkcs11:" + std::string(128 << 10, ';')));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  const std::string_view text = AsText({data, size});
  const auto stored = envelope::Pkcs11Uri::Parse(text);
  if (stored) {
    FUZZ_CHECK(text.size() <= envelope::Pkcs11Uri::kMaxSizeBytes && stored->text() == text);
    std::string again = "pkcs11:";
    const auto add = [&](const char* name, const std::optional<std::string>& value) {
      if (!value) return;
      if (again.back() != ':') again += ';';
      again += std::string(name) + "=" + envelope::PercentEncodePkcs11(*value);
      FUZZ_CHECK(envelope::PercentDecodePkcs11(envelope::PercentEncodePkcs11(*value), "") ==
                 *value);
    };
    add("token", stored->token);
    add("manufacturer", stored->manufacturer);
    add("serial", stored->serial);
    add("model", stored->model);
    add("object", stored->object);
    add("id", stored->id);
    add("type", stored->type);
    if (again.size() <= envelope::Pkcs11Uri::kMaxSizeBytes) {
      const auto other = envelope::Pkcs11Uri::Parse(again);
      FUZZ_CHECK(other && other->token == stored->token && other->id == stored->id &&
                 other->manufacturer == stored->manufacturer && other->serial == stored->serial &&
                 other->model == stored->model && other->object == stored->object &&
                 other->type == stored->type);
    }
    hsm::TokenInfo token;
    token.label = stored->token.value_or("");
    hsm::UriMatchesToken(*stored, token);
    hsm::UriMatchesKey(*stored, {});
  }
  if (const auto strict = hsm::ParseUri(text)) {
    FUZZ_CHECK(stored.has_value());
  } else {
    fuzz::CheckError(strict.error());
  }
  if (const auto typed = hsm::ParseCommandLineUri(text)) {
    FUZZ_CHECK(envelope::Pkcs11Uri::Parse(typed->path).has_value());
    FUZZ_CHECK(!typed->module_path || typed->module_path->find('\0') == std::string::npos);
  } else {
    fuzz::CheckError(typed.error());
  }
  return 0;
}
