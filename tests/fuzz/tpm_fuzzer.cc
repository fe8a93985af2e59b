// A TPM that lies. It answers each command with what the input says: raw bytes, a response code, or
// parameters of its own inside a response that is well-formed and carries the right HMAC, since a
// hostile TPM knows the session's keys. The agent must do no more than fail.
#include <map>

#include "envelope/base/hash.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keys.h"
#include "tpm/agent_key.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"
#include "tpm/session.h"
#include "tpm/srk.h"
#include "tpm/tpm_factor.h"
#include "tpm/transport.h"

// The waits between repetitions to a TPM that says that it is busy.
extern "C" int __wrap_nanosleep(const timespec* wanted, timespec* left);
extern "C" int __wrap_nanosleep(const timespec* /*wanted*/, timespec* /*left*/) { return 0; }

namespace keyescrow::fuzz {

// The thread of the device has a stack of 8 MiB and a heap of its own.
const Limits kLimits{.max_len = 16384, .memory_mib = 256, .cpu_s = 2};

namespace {

using namespace tpm;

constexpr std::size_t kMaxResponseBytes = 4096;  // what the transport gives at most

class HostileTpm final : public Transport {
 public:
  explicit HostileTpm(Input& input) : input_(input) {}

  Result<Bytes> Exchange(ByteView command) override {
    FUZZ_CHECK(++num_commands_ < 5000);
    ByteReader reader(command);
    const bool authorized = *reader.TakeU16() == 0x8002;
    FUZZ_CHECK(*reader.TakeU32() == command.size());
    const std::uint32_t code = *reader.TakeU32();
    if (input_.empty()) return Framed(false, 0x101, {});
    const std::uint8_t kind = input_.U8();
    if (kind % 4 == 0) return Framed(false, input_.U32(), {});
    Bytes body = ToBytes(input_.Take(std::min<std::size_t>(input_.U16(), kMaxResponseBytes)));
    if (kind % 4 == 1) return body;
    return WellFormed(code, authorized, command, reader, body);
  }

 private:
  static Bytes Framed(bool authorized, std::uint32_t response_code, ByteView rest) {
    Bytes bytes;
    AppendU16(bytes, authorized ? 0x8002 : 0x8001);
    AppendU32(bytes, static_cast<std::uint32_t>(10 + rest.size()));
    AppendU32(bytes, response_code);
    AppendBytes(bytes, rest);
    return bytes;
  }

  Bytes WellFormed(std::uint32_t code, bool authorized, ByteView command, ByteReader& reader,
                   const Bytes& parameters) {
    Bytes rest;
    if (code == kCcLoad || code == kCcLoadExternal || code == kCcCreatePrimary) {
      AppendU32(rest, 0x80000001);
    }
    if (code == kCcStartAuthSession) {
      AppendU32(rest, 0x03000000);
      StartSession(command, parameters);
    }
    if (!authorized) {
      AppendBytes(rest, parameters);
      return Framed(false, 0, rest);
    }
    reader.Take(code == kCcEvictControl ? 8 : 4);
    AppendU32(rest, static_cast<std::uint32_t>(parameters.size()));
    AppendBytes(rest, parameters);
    reader.TakeU32();
    const std::uint32_t session = *reader.TakeU32();
    const Bytes nonce_caller = ToBytes(*TakeTpm2b(reader));
    if (session == kRsPw) {
      AppendTpm2b(rest, {});
      rest.push_back(0);
      AppendTpm2b(rest, {});
      return Framed(true, 0, rest);
    }
    const std::uint8_t attributes = *reader.TakeU8();
    const std::uint8_t nonce[] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    Bytes prefix;
    AppendU32(prefix, 0);
    AppendU32(prefix, code);
    const Bytes32 rp_hash = Sha256({prefix, parameters});
    Bytes key = session_key_;
    if (code == kCcUnseal || code == kCcSign) AppendBytes(key, Bytes(32, 5));
    const std::uint8_t attribute_byte[] = {attributes};
    AppendTpm2b(rest, nonce);
    rest.push_back(attributes);
    AppendTpm2b(rest, HmacSha256(key, {rp_hash, nonce, nonce_caller, attribute_byte}));
    return Framed(true, 0, rest);
  }

  // StartSession finds the salt, as the holder of the storage key does.
  void StartSession(ByteView command, const Bytes& parameters) {
    session_key_.clear();
    ByteReader answer(parameters);
    const auto nonce_tpm = TakeTpm2b(answer);
    ByteReader reader(command);
    reader.Take(18);
    const auto nonce_caller = TakeTpm2b(reader);
    const auto encrypted = TakeTpm2b(reader);
    if (!nonce_tpm || !nonce_caller || !encrypted || encrypted->size() != 68) return;
    const ByteView x = encrypted->subspan(2, 32);
    const ByteView y = encrypted->subspan(36, 32);
    const auto point = P256Point::FromXy(x, y);
    FUZZ_CHECK(point.has_value());
    const auto shared = FixedKeyPair().SharedX(*point);
    const auto seed = KdfE(*shared, "SECRET", x, FixedKeyPair().Public().x());
    session_key_ = ToBytes(KdfA(seed->Expose(), "ATH", *nonce_tpm, *nonce_caller, 256)->Expose());
  }

  Input& input_;
  Bytes session_key_;
  int num_commands_ = 0;
};

Input* current = nullptr;

Bytes SrkPublic() {
  Bytes bytes = SrkTemplate();
  bytes.erase(bytes.end() - 4, bytes.end());
  AppendTpm2b(bytes, FixedKeyPair().Public().x());
  AppendTpm2b(bytes, FixedKeyPair().Public().y());
  bytes[0] = 0;
  bytes[1] = static_cast<std::uint8_t>(bytes.size() - 2);
  return bytes;
}

Bytes AgentKeyPublic() {
  Bytes area = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x04, 0x04, 0x72, 0x00, 0x00,
                0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10};
  AppendTpm2b(area, FixedKeyPair().Public().x());
  AppendTpm2b(area, FixedKeyPair().Public().y());
  Bytes bytes;
  AppendTpm2b(bytes, area);
  return bytes;
}

void CheckCode(const Error& error) {
  CheckError(error);
  FUZZ_CHECK(error.code() != ErrorCode::kInternal);
}

// Kinds of record: with an auth value, with PCRs, for a signer of PCR policies, wrapped offline.
envelope::Tpm2Record Record(std::uint8_t kind) {
  envelope::Tpm2Record record;
  record.host = "db1";
  record.parent_public = SrkPublic();
  record.auth = (kind & 1) != 0;
  std::vector<std::uint8_t> pcrs;
  if ((kind & 2) != 0) {
    pcrs = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    record.pcrs = envelope::FormatPcrSelection(pcrs);
    if ((kind & 4) != 0) {
      const auto spki = FixedKeyPair().Public().Spki();
      record.signer = ToBytes(spki);
    } else {
      record.pcr_digest = Bytes32{7};
    }
  } else if ((kind & 4) != 0) {
    record.seed = Bytes(70, 1);
  }
  const Bytes32 policy = envelope::Tpm2AuthPolicy(pcrs, record.pcr_digest, record.signer);
  record.object_public = SealedArea(!record.seed.empty(), record.auth, policy, Bytes(32, 3));
  record.object_private = Bytes(100, 4);
  return record;
}

}  // namespace

void Prepare() {}

void VisitLargest(Feed feed) {
  for (std::uint8_t operation = 0; operation < 8; ++operation) {
    for (const std::uint8_t kind : {std::uint8_t{1}, std::uint8_t{2}}) {
      Bytes input = {operation, 7};
      for (int reply = 0; reply < 100; ++reply) {
        input.insert(input.end(), {kind, 0x0f, 0xf0});
        input.insert(input.end(), 0xff0, 0xff);
      }
      feed(input);
      Bytes busy = {operation, 7};
      for (int reply = 0; reply < 2000; ++reply) busy.insert(busy.end(), {0, 0, 0, 9, 0x22});
      feed(busy);
    }
  }
}

}  // namespace keyescrow::fuzz

namespace keyescrow::tpm {

// In place of tpm/tcti_transport.cc, which the linker then leaves out.
Result<std::unique_ptr<Transport>> OpenTctiTransport(const std::string& /*tcti*/) {
  return std::unique_ptr<Transport>(std::make_unique<fuzz::HostileTpm>(*fuzz::current));
}

}  // namespace keyescrow::tpm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::tpm;
  fuzz::Input input(data, size);
  fuzz::current = &input;
  const std::uint8_t operation = input.U8();
  const std::uint8_t kind = input.U8();
  DeviceOptions options;
  options.tcti = "hostile";
  options.command_deadline_ms = 60'000;
  if ((operation & 8) != 0) options.pinned_srk = fuzz::SrkPublic();
  auto opened = Device::Open(options);
  FUZZ_CHECK(opened.has_value());
  const std::shared_ptr<Device> device = *std::move(opened);
  Tpm tpm(device);
  const auto auth = SecretBytes::CopyOf(Bytes(32, 5));
  const auto secret = SecretBytes::CopyOf(Bytes(32, 6));
  switch (operation & 7) {
    case 0:
    case 1: {
      const envelope::Tpm2Record record = fuzz::Record(kind);
      const Bytes64 signature{1};
      envelope::UnsealRequest request;
      if (record.auth) request.auth_value = &*auth;
      request.use_last_try = (kind & 8) != 0;
      if (!record.signer.empty()) request.pcr_policy_signature = &signature;
      const auto unsealed = tpm.Unseal(record, request);
      if (!unsealed) {
        fuzz::CheckCode(unsealed.error());
      } else {
        FUZZ_CHECK(unsealed->size() <= fuzz::kMaxResponseBytes);
      }
      break;
    }
    case 2: {
      envelope::SealRequest request{.secret = &*secret,
                                    .auth_value = (kind & 1) != 0 ? &*auth : nullptr,
                                    .host = "db1",
                                    .pcrs = {}};
      if ((kind & 2) != 0) request.pcrs = {0, 7};
      const auto sealed = tpm.Seal(request);
      if (!sealed) fuzz::CheckCode(sealed.error());
      // What is sealed is the object that was asked for, under the key that was asked for.
      if (sealed)
        FUZZ_CHECK(sealed->object_public.size() == 80 && sealed->auth == ((kind & 1) != 0));
      break;
    }
    case 3: {
      if (auto state = tpm.Inspect()) {
        for (const std::string& text : {state->manufacturer, state->vendor}) {
          for (const char c : text) FUZZ_CHECK(c >= 0x20 && c <= 0x7e);
        }
      } else {
        fuzz::CheckCode(state.error());
      }
      break;
    }
    case 4: {
      if (auto parent = tpm.StorageParent()) {
        FUZZ_CHECK(ParseSrkPublic(*parent).has_value());
      } else {
        fuzz::CheckCode(parent.error());
      }
      break;
    }
    case 5:
      if (auto status = device->PersistSrk(); !status) fuzz::CheckCode(status.error());
      break;
    case 6: {
      if (auto blob = TpmAgentKey::Create(*device, *auth)) {
        FUZZ_CHECK(
            TpmAgentKey::Open(device, *blob, *SecretBytes::CopyOf(Bytes(32, 5))).has_value());
      } else {
        fuzz::CheckCode(blob.error());
      }
      break;
    }
    default: {
      auto key = TpmAgentKey::Open(device, {fuzz::AgentKeyPublic(), Bytes(50, 1)},
                                   *SecretBytes::CopyOf(Bytes(32, 5)));
      FUZZ_CHECK(key.has_value());
      for (int index = 0; index < 3; ++index) {
        if (index == 2) (*key)->NextIsLast();
        const auto signature = (*key)->SignDigest(Bytes32{1});
        if (!signature) fuzz::CheckCode(signature.error());
      }
      break;
    }
  }
  return 0;
}
