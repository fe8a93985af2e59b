// Checkpoints (C2SP tlog-checkpoint): `origin\nsize\nbase64(root)\n` as the text of a signed note.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/note.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

struct Checkpoint {
  std::string origin;
  std::uint64_t size = 0;
  Bytes32 root{};
};

// LogOrigin returns `keyescrow.log/<host>/<thumbprint of the first agent key>`; both signature
// lines carry it as their key name.
std::string LogOrigin(std::string_view host, std::string_view thumbprint);

std::string FormatCheckpoint(const Checkpoint& checkpoint);

// ParseCheckpoint takes a note's text; extension lines after the third are allowed and ignored.
// Errors: kLogDamaged.
Result<Checkpoint> ParseCheckpoint(std::string_view text);

// OpenCheckpoint reads a note that at least one of `keys` signed. Errors: kLogDamaged.
Result<Checkpoint> OpenCheckpoint(std::string_view note, const std::vector<NoteKey>& keys);

// CheckpointHash is what the next events name as prev_checkpoint: SHA-256 of the text, no
// signatures.
Bytes32 CheckpointHash(std::string_view text);

// NoteText returns the signed part of a note's bytes without checking the rest: up to and with the
// newline before the last blank line; empty where there is none.
std::string_view NoteText(std::string_view note);

}  // namespace keyescrow::agent::audit
