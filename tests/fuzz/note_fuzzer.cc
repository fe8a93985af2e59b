// Signed notes, checkpoints and verifier keys.
#include "agent/audit/checkpoint.h"
#include "agent/audit/note.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keys.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 8192, .memory_mib = 32, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  feed_text(std::string(64 << 10, '\n'));
  std::string note = "a\n\n";
  while (note.size() < 60 << 10) note += "\xE2\x80\x94 a AAAAAAAA\n";
  feed_text(note);
  feed_text(std::string(3 << 20, 'a'));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::agent::audit;
  const std::string_view bytes = AsText({data, size});
  const auto note = ParseNote(bytes);
  if (note) {
    FUZZ_CHECK(size <= kMaxNoteBytes && note->signatures.size() <= kMaxNoteSignatures);
    FUZZ_CHECK(note->text == NoteText(bytes));
    for (const NoteSignature& line : note->signatures) {
      FUZZ_CHECK(IsValidNoteName(line.name) && !line.signature.empty());
    }
    // The first signer's name is given to two known keys: nothing was signed by them.
    if (!note->signatures.empty()) {
      NoteKey ed25519 = NoteKey::Ed25519(note->signatures[0].name, Bytes32{1});
      NoteKey p256 = NoteKey::P256(note->signatures[0].name, fuzz::FixedKeyPair().Public());
      const auto unknown = VerifyNote(*note, {ed25519, p256});
      FUZZ_CHECK(!unknown || unknown->size() == 2);
      ed25519.id = p256.id = note->signatures[0].id;
      FUZZ_CHECK(!VerifyNote(*note, {ed25519}));
      FUZZ_CHECK(!VerifyNote(*note, {p256}));
    }
  } else {
    fuzz::CheckError(note.error());
  }
  for (const std::string_view text : {bytes, NoteText(bytes)}) {
    const auto checkpoint = ParseCheckpoint(text);
    if (!checkpoint) continue;
    const auto again = ParseCheckpoint(FormatCheckpoint(*checkpoint));
    FUZZ_CHECK(again && again->origin == checkpoint->origin && again->size == checkpoint->size &&
               again->root == checkpoint->root);
  }
  if (const auto key = NoteKey::FromVkey(bytes)) FUZZ_CHECK(key->Vkey() == bytes);
  return 0;
}
