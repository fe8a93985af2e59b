#include "envelope/anchor.h"

#include <algorithm>
#include <string>

#include "envelope/base/byte_reader.h"
#include "envelope/base/hash.h"
#include "envelope/factor.h"

namespace keyescrow::envelope {
namespace {

// TPMT_PUBLIC up to `unique`: ECC, SHA-256, fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|
// noDA|restricted|sign, no policy, symmetric NULL, ECDSA with SHA-256, P-256, kdf NULL.
constexpr std::uint8_t kAttestationArea[] = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x04,
                                             0x72, 0x00, 0x00, 0x00, 0x10, 0x00, 0x18,
                                             0x00, 0x0b, 0x00, 0x03, 0x00, 0x10};
constexpr std::size_t kAttestationPublicBytes = 2 + sizeof(kAttestationArea) + 2 * 34;

// TPMA_NV: AUTHWRITE, TPM_NT_COUNTER, AUTHREAD, NO_DA; WRITTEN once it was incremented.
constexpr std::uint32_t kCounterAttributes = 0x0204'0014;
constexpr std::uint32_t kWritten = 0x2000'0000;
constexpr std::size_t kCounterBytes = 8;

constexpr std::string_view kIndexLabel = "keyescrow/anchor/1";
constexpr std::uint32_t kGenerated = 0xff54'4347;  // TPM_GENERATED_VALUE
constexpr std::uint16_t kAttestNv = 0x8014;        // TPM_ST_ATTEST_NV

void AppendBigEndian(Bytes& out, std::uint64_t value, int num_bytes) {
  for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<std::uint8_t>(value >> shift));
  }
}

void AppendSized(Bytes& out, ByteView bytes) {
  AppendBigEndian(out, bytes.size(), 2);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::optional<ByteView> TakeSized(ByteReader& reader) {
  const auto size = reader.TakeU16();
  return size ? reader.Take(*size) : std::nullopt;
}

std::optional<std::uint64_t> TakeU64(ByteReader& reader) {
  const auto bytes = reader.Take(8);
  if (!bytes) return std::nullopt;
  std::uint64_t value = 0;
  for (const std::uint8_t byte : *bytes) value = value << 8 | byte;
  return value;
}

Error Invalid(std::string what) {
  return Error(
      ErrorCode::kAnchorInvalid, Action::kCallOperator,
      "the tpm's certificate of the log's counter does not verify: " + std::move(what),
      "compare the log with a copy, and the attestation key with the one that was exported");
}

// ParseAttest reads the whole TPMS_ATTEST (Part 2, 10.12.12) or gives nothing.
std::optional<AnchorFacts> ParseAttest(ByteView attest, ByteView index_name) {
  ByteReader reader(attest);
  const auto magic = reader.TakeU32();
  const auto type = reader.TakeU16();
  const auto signer = TakeSized(reader);
  const auto extra = TakeSized(reader);
  const auto clock = TakeU64(reader);
  const auto resets = reader.TakeU32();
  const auto restarts = reader.TakeU32();
  const auto safe = reader.TakeU8();
  const auto firmware = TakeU64(reader);
  const auto name = TakeSized(reader);
  const auto offset = reader.TakeU16();
  const auto contents = TakeSized(reader);
  if (magic != kGenerated || type != kAttestNv || !signer || !extra || extra->size() != 32 ||
      !clock || !resets || !restarts || !safe || *safe > 1 || !firmware || !name ||
      !std::equal(name->begin(), name->end(), index_name.begin(), index_name.end()) ||
      offset != 0 || !contents || contents->size() != kCounterBytes || !reader.AtEnd()) {
    return std::nullopt;
  }
  AnchorFacts facts;
  ByteReader counter(*contents);
  facts.counter = *TakeU64(counter);
  std::copy(extra->begin(), extra->end(), facts.checkpoint_hash.begin());
  facts.clock_ms = *clock;
  facts.num_resets = *resets;
  facts.num_restarts = *restarts;
  facts.clock_safe = *safe == 1;
  return facts;
}

}  // namespace

Bytes AttestationTemplate() {
  Bytes area = ToBytes(kAttestationArea);
  AppendSized(area, {});  // unique.x and .y of size 0
  AppendSized(area, {});
  Bytes tpm2b;
  AppendSized(tpm2b, area);
  return tpm2b;
}

std::optional<P256Point> ParseAttestationKey(ByteView tpm2b_public) {
  ByteReader reader(tpm2b_public);
  const auto size = reader.TakeU16();
  const auto area = reader.Take(sizeof(kAttestationArea));
  if (tpm2b_public.size() != kAttestationPublicBytes || size != kAttestationPublicBytes - 2 ||
      !area || !std::equal(area->begin(), area->end(), std::begin(kAttestationArea))) {
    return std::nullopt;
  }
  const auto x = TakeSized(reader);
  const auto y = TakeSized(reader);
  if (!x || !y || x->size() != 32 || y->size() != 32) return std::nullopt;
  return P256Point::FromXy(*x, *y);
}

Bytes AnchorIndexPublic(std::uint32_t nv_index, std::string_view origin, bool written) {
  constexpr std::uint8_t kEnd[1] = {0};
  const Bytes32 marker = Sha256({AsBytes(kIndexLabel), kEnd, AsBytes(origin)});
  Bytes area;
  AppendBigEndian(area, nv_index, 4);
  AppendBigEndian(area, 0x000b, 2);
  AppendBigEndian(area, kCounterAttributes | (written ? kWritten : 0), 4);
  AppendSized(area, marker);
  AppendBigEndian(area, kCounterBytes, 2);
  Bytes tpm2b;
  AppendSized(tpm2b, area);
  return tpm2b;
}

Bytes AnchorIndexName(std::uint32_t nv_index, std::string_view origin, bool written) {
  return Tpm2Name(AnchorIndexPublic(nv_index, origin, written));
}

Result<AnchorFacts> CheckAnchorStatement(const AnchorKey& key, std::string_view origin,
                                         const AnchorStatement& statement) {
  const auto point = ParseAttestationKey(key.attestation_public);
  if (!point) return Invalid("the key is not a restricted key of a tpm");
  const auto facts = ParseAttest(statement.attest, AnchorIndexName(key.nv_index, origin, true));
  if (!facts) return Invalid("it is not about this log's counter");
  if (!VerifyEs256(*point, Sha256(statement.attest), statement.signature)) {
    return Invalid("its signature is not the attestation key's");
  }
  return *facts;
}

}  // namespace keyescrow::envelope
