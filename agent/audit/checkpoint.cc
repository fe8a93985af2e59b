#include "agent/audit/checkpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "agent/audit/note.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::audit {
namespace {

Error Damaged(std::string_view what) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
               fmt::format("the checkpoint has no valid {}", what),
               "take the checkpoint from the log again, or compare it with a copy");
}

// TakeLine removes the first line of `text` and returns it; nothing where no newline ends it.
std::optional<std::string_view> TakeLine(std::string_view& text) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

}  // namespace

std::string LogOrigin(std::string_view host, std::string_view thumbprint) {
  return fmt::format("keyescrow.log/{}/{}", host, thumbprint);
}

std::string FormatCheckpoint(const Checkpoint& checkpoint) {
  return fmt::format("{}\n{}\n{}\n", checkpoint.origin, checkpoint.size,
                     EncodeBase64(checkpoint.root));
}

Result<Checkpoint> ParseCheckpoint(std::string_view text) {
  const auto origin = TakeLine(text);
  if (!origin || origin->empty()) return Damaged("origin");
  Checkpoint checkpoint;
  checkpoint.origin = std::string(*origin);
  const auto size = TakeLine(text);
  if (!size || size->empty() || (size->size() > 1 && size->front() == '0')) return Damaged("size");
  const auto [end, error] =
      std::from_chars(size->data(), size->data() + size->size(), checkpoint.size);
  if (error != std::errc() || end != size->data() + size->size()) return Damaged("size");
  const auto root_text = TakeLine(text);
  const auto root = root_text ? DecodeBase64(*root_text) : std::nullopt;
  if (!root || root->size() != checkpoint.root.size()) return Damaged("root");
  std::copy(root->begin(), root->end(), checkpoint.root.begin());
  while (!text.empty()) {
    const auto extension = TakeLine(text);
    if (!extension || extension->empty()) return Damaged("extension");
  }
  return checkpoint;
}

Result<Checkpoint> OpenCheckpoint(std::string_view note_bytes, const std::vector<NoteKey>& keys) {
  ASSIGN_OR_RETURN(const Note note, ParseNote(note_bytes));
  ASSIGN_OR_RETURN(const std::vector<bool> verified, VerifyNote(note, keys));
  if (std::find(verified.begin(), verified.end(), true) == verified.end()) {
    return Error(ErrorCode::kLogDamaged, Action::kFixInput,
                 "none of the log's keys signed the older checkpoint",
                 "give a checkpoint of this log, as audit checkpoint printed it");
  }
  return ParseCheckpoint(note.text);
}

Bytes32 CheckpointHash(std::string_view text) { return Sha256(AsBytes(text)); }

std::string_view NoteText(std::string_view note) {
  const std::size_t split = note.rfind("\n\n");
  return split == std::string_view::npos ? std::string_view() : note.substr(0, split + 1);
}

}  // namespace keyescrow::agent::audit
