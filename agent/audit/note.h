// Signed notes as the log uses them: envelope/signed_note.h under the names of this room.
#pragma once

#include "envelope/signed_note.h"

namespace keyescrow::agent::audit {

using envelope::IsValidNoteName;
using envelope::KeyId;
using envelope::kMaxNoteBytes;
using envelope::kMaxNoteSignatures;
using envelope::Note;
using envelope::NoteKey;
using envelope::NoteSignature;
using envelope::ParseNote;
using envelope::SignLineEd25519;
using envelope::SignLineP256;
using envelope::VerifyNote;

}  // namespace keyescrow::agent::audit
