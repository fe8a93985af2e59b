#include "agent/audit/proof.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "agent/audit/merkle.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent::audit {
namespace {

constexpr std::string_view kHeader = "c2sp.org/tlog-proof@v1\n";
constexpr std::size_t kMaxProofBytes = 128 * 1024;

Error Damaged(std::string_view what) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
               fmt::format("the receipt does not verify: {}", what),
               "export the key again, or compare the receipt with the log");
}

}  // namespace

std::string FormatTlogProof(const TlogProof& proof) {
  std::string text(kHeader);
  if (!proof.extra.empty()) text += fmt::format("extra {}\n", EncodeBase64(proof.extra));
  text += fmt::format("index {}\n", proof.index);
  for (const Bytes32& hash : proof.hashes) text += EncodeBase64(hash) + "\n";
  text += "\n";
  text += proof.checkpoint;
  return text;
}

Result<TlogProof> ParseTlogProof(std::string_view text) {
  if (text.size() > kMaxProofBytes) return Damaged("it is too long");
  if (!text.starts_with(kHeader)) return Damaged("it is not a c2sp.org/tlog-proof@v1");
  text.remove_prefix(kHeader.size());
  TlogProof proof;
  bool index_seen = false;
  for (bool first = true;; first = false) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return Damaged("it is cut off");
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (first && line.starts_with("extra ")) {
      auto extra = DecodeBase64(line.substr(6));
      if (!extra || extra->empty()) return Damaged("its extra line is malformed");
      proof.extra = std::move(*extra);
    } else if (!index_seen) {
      if (!line.starts_with("index ")) return Damaged("it has no index");
      line.remove_prefix(6);
      const auto [stop, error] =
          std::from_chars(line.data(), line.data() + line.size(), proof.index);
      if (error != std::errc() || stop != line.data() + line.size() ||
          (line.size() > 1 && line.front() == '0')) {
        return Damaged("its index is malformed");
      }
      index_seen = true;
    } else if (line.empty()) {
      break;
    } else {
      const auto hash = DecodeBase64(line);
      if (!hash || hash->size() != 32 || proof.hashes.size() == 64) {
        return Damaged("it has a malformed hash");
      }
      std::copy(hash->begin(), hash->end(), proof.hashes.emplace_back().begin());
    }
  }
  proof.checkpoint = std::string(text);
  return proof;
}

Result<VerifiedProof> VerifyTlogProof(const TlogProof& proof, ByteView entry,
                                      std::string_view origin, const std::vector<NoteKey>& keys) {
  ASSIGN_OR_RETURN(const Note note, ParseNote(proof.checkpoint));
  VerifiedProof verified;
  ASSIGN_OR_RETURN(verified.verified, VerifyNote(note, keys));
  if (std::find(verified.verified.begin(), verified.verified.end(), true) ==
      verified.verified.end()) {
    return Damaged("none of the known keys signed its checkpoint");
  }
  ASSIGN_OR_RETURN(verified.checkpoint, ParseCheckpoint(note.text));
  // A log's keys have its origin as their name, whether or not the caller knows which log it is.
  bool own = false;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    own = own || (verified.verified[i] && keys[i].name == verified.checkpoint.origin);
  }
  if (!own || (!origin.empty() && verified.checkpoint.origin != origin)) {
    return Damaged("its checkpoint is of another log");
  }
  if (!VerifyInclusion(LeafHash(entry), proof.index, verified.checkpoint.size, proof.hashes,
                       verified.checkpoint.root)) {
    return Damaged("the entry is not in the log at that place");
  }
  return verified;
}

}  // namespace keyescrow::agent::audit
