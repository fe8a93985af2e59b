#include "envelope/factor.h"

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"

namespace keyescrow::envelope {
namespace {

constexpr std::uint8_t kPolicyPcr[4] = {0, 0, 0x01, 0x7f};
constexpr std::uint8_t kPolicyAuthorize[4] = {0, 0, 0x01, 0x6a};
constexpr std::uint8_t kPolicyAuthValue[4] = {0, 0, 0x01, 0x6b};

}  // namespace

std::string EcdhSharedInfo(const Pkcs11EcdhRecord& record) {
  return "keyescrow1|ecdh|" + EncodeBase64Url(record.epk) + "|" + EncodeBase64Url(record.spki);
}

Result<SecretBytes> EcdhSecret(const SecretBytes& shared_x, const Pkcs11EcdhRecord& record) {
  constexpr std::uint8_t kCounter[4] = {0, 0, 0, 1};
  const std::string shared_info = EcdhSharedInfo(record);
  return Sha256Secret({shared_x.Expose(), kCounter, AsBytes(shared_info)});
}

std::optional<std::vector<std::uint8_t>> ParsePcrSelection(std::string_view text) {
  constexpr std::string_view kBank = "sha256:";
  if (!text.starts_with(kBank)) return std::nullopt;
  text.remove_prefix(kBank.size());
  std::vector<std::uint8_t> pcrs;
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view number = text.substr(0, comma);
    if (number.empty() || number.size() > 2 || (number.size() == 2 && number[0] == '0')) {
      return std::nullopt;
    }
    int value = 0;
    for (char digit : number) {
      if (digit < '0' || digit > '9') return std::nullopt;
      value = value * 10 + (digit - '0');
    }
    if (value > 23 || (!pcrs.empty() && value <= pcrs.back())) return std::nullopt;
    pcrs.push_back(static_cast<std::uint8_t>(value));
    if (comma == std::string_view::npos) return pcrs;
    text.remove_prefix(comma + 1);
  }
}

std::string FormatPcrSelection(const std::vector<std::uint8_t>& pcrs) {
  std::string text;
  for (std::uint8_t pcr : pcrs) {
    text += text.empty() ? "sha256:" : ",";
    text += std::to_string(pcr);
  }
  return text;
}

Bytes MarshalPcrSelection(const std::vector<std::uint8_t>& pcrs) {
  Bytes selection = {0, 0, 0, 1, 0x00, 0x0b, 3, 0, 0, 0};  // count 1, SHA-256, 3 select bytes
  for (std::uint8_t pcr : pcrs) {
    selection[7U + pcr / 8U] = static_cast<std::uint8_t>(selection[7U + pcr / 8U] | 1U << pcr % 8);
  }
  return selection;
}

Bytes32 Tpm2AuthPolicy(const std::vector<std::uint8_t>& pcrs,
                       const std::optional<Bytes32>& pcr_digest, const Bytes& signer_spki) {
  Bytes32 policy{};
  if (!signer_spki.empty()) {
    // Name of the TPMT_PUBLIC that `tpm2_loadexternal -G ecc -C o` makes of the signer's key.
    Bytes area = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x06, 0x00, 0x40, 0x00,
                  0x00, 0x00, 0x10, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10};
    const ByteView point = ByteView(signer_spki).subspan(27);
    for (std::size_t coordinate = 0; coordinate < 2; ++coordinate) {
      area.push_back(0);
      area.push_back(32);
      const ByteView value = point.subspan(coordinate * 32, 32);
      area.insert(area.end(), value.begin(), value.end());
    }
    const Bytes32 digest = Sha256(area);
    constexpr std::uint8_t kSha256Id[2] = {0x00, 0x0b};
    policy = Sha256({policy, kPolicyAuthorize, kSha256Id, digest});
    policy = Sha256(policy);  // the empty policyRef is hashed in a second step
  } else if (!pcrs.empty() && pcr_digest) {
    policy = Sha256({policy, kPolicyPcr, MarshalPcrSelection(pcrs), *pcr_digest});
  }
  return Sha256({policy, kPolicyAuthValue});
}

Bytes Tpm2Name(ByteView tpm2b_public) {
  Bytes name = {0x00, 0x0b};
  const Bytes32 digest = Sha256(tpm2b_public.size() > 2 ? tpm2b_public.subspan(2) : ByteView());
  name.insert(name.end(), digest.begin(), digest.end());
  return name;
}

}  // namespace keyescrow::envelope
