// What a trusted agent may have signed: the payload and the header behind the signature. The input
// is the payload's JSON on one line, with @ for the header, and the header; the fuzzer signs it.
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/sealed_envelope.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keys.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 32768, .memory_mib = 96, .cpu_s = 3};
void Prepare() {}

void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = envelope::kMaxPayloadSizeBytes;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string values = R"({"aad":[)";
  while (values.size() < kSize - 4) values += "0,";
  feed_text(values + "0]}");
  std::string members = "{";
  for (int number = 0; members.size() < kSize - 14; ++number) {
    members += "\"" + std::to_string(number) + "\":0,";
  }
  feed_text(members + "\"\":0}");
  feed_text("{\"aad\":\"@\"}\n" + std::string(512 << 10, '['));
}

namespace {

std::string Sign(const std::string& payload_json) {
  const P256KeyPair& pair = FixedKeyPair();
  static const std::string kProtected = EncodeBase64Url(AsBytes(
      R"({"alg":"ES256","jwk":{"crv":"P-256","kty":"EC","x":")" +
      EncodeBase64Url(pair.Public().x()) + R"(","y":")" + EncodeBase64Url(pair.Public().y()) +
      R"("},"kid":")" + JwkThumbprint(pair.Public()) + R"(","typ":"keyescrow+jws"})"));
  const std::string payload = EncodeBase64Url(AsBytes(payload_json));
  const Bytes32 digest = Sha256({AsBytes(kProtected), AsBytes("."), AsBytes(payload)});
  const Bytes64 signature = pair.SignEs256(digest).value();
  return R"({"payload":")" + payload + R"(","protected":")" + kProtected + R"(","signature":")" +
         EncodeBase64Url(signature) + "\"}\n";
}

}  // namespace
}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::envelope;
  fuzz::Input input(data, size);
  std::string payload(input.Line());
  if (const std::size_t at = payload.find('@'); at != std::string::npos) {
    payload.replace(at, 1, EncodeBase64Url(input.rest()));
  }
  const std::string file = fuzz::Sign(payload);
  const TrustedAgent trusted{JwkThumbprint(fuzz::FixedKeyPair().Public()), {"db*"}, {"prod/**"}};
  const auto sealed = SealedEnvelope::Read(AsBytes(file), {.trusted = {trusted}});
  if (!sealed) {
    fuzz::CheckError(sealed.error());
    const Failure failure = sealed.error().failure();
    FUZZ_CHECK(
        failure == Failure::kFormat || failure == Failure::kLimit ||
        (failure == Failure::kSignature && (file.size() > kMaxFileSizeBytes ||
                                            sealed.error().code() == ErrorCode::kAgentOutOfScope)));
    return 0;
  }
  FUZZ_CHECK(sealed->agent_trusted() && sealed->header().agent == trusted.thumbprint);
  FUZZ_CHECK(NamePatternMatches("db*", sealed->header().host));
  const auto secret = SecretBytes::CopyOf(Bytes(32, 1));
  for (std::size_t index = 0; index < sealed->header().paths.size(); ++index) {
    const std::vector<const SecretBytes*> secrets(sealed->header().paths[index].factors.size(),
                                                  &*secret);
    const auto opened = sealed->Open(index, secrets);
    FUZZ_CHECK(!opened);
    fuzz::CheckError(opened.error());
  }
  return 0;
}
