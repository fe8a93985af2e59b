// C2SP signed notes: a text, a blank line, signature lines `— name base64(keyid4 ‖ signature)`.
// The signed text includes its last newline and not the blank line; a note is split at the last
// blank line. agent/audit/FORMAT.md, "Notes": the log's checkpoints and policies are such notes.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/p256.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/signer.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxNoteBytes = 64 * 1024;
inline constexpr std::size_t kMaxNoteSignatures = 100;

using KeyId = std::array<std::uint8_t, 4>;

// NoteKey verifies one signer's lines: exactly one of the two public keys is there.
struct NoteKey {
  std::string name;  // no space, no '+'
  KeyId id{};
  std::optional<Bytes32> ed25519;  // algorithm 01
  std::optional<P256Point> p256;   // algorithm 02: DER signature over SHA-256(text)

  static NoteKey Ed25519(std::string name, const Bytes32& public_key);
  static NoteKey P256(std::string name, const P256Point& public_key);
  // Vkey returns `name+hex8(id)+base64(alg ‖ key)`; an ECDSA key is its SubjectPublicKeyInfo.
  std::string Vkey() const;
  static std::optional<NoteKey> FromVkey(std::string_view text);
  bool Verify(std::string_view text, ByteView signature) const;
};

bool IsValidNoteName(std::string_view name);

// NoteSignature is one signature line, decoded and not verified.
struct NoteSignature {
  std::string name;
  KeyId id{};
  Bytes signature;
};

struct Note {
  std::string text;  // ends with a newline
  std::vector<NoteSignature> signatures;
};

// Signature lines with their newline, to be put after the text and a blank line.
Result<std::string> SignLineEd25519(const NoteKey& key, const SecretBytes& seed,
                                    std::string_view text);
// Errors: those of `signer`, which may be a device with a deadline of its own.
Result<std::string> SignLineP256(const NoteKey& key, Signer& signer, std::string_view text);

// ParseNote checks the shape. Errors: kLogDamaged.
Result<Note> ParseNote(std::string_view bytes);

// VerifyNote says for each of `keys` whether a line of it verified. A line whose name and id match
// a key must verify, lines of unknown keys are ignored. Errors: kLogDamaged for a line that does
// not verify; a note without any known line is not an error: every element is then false.
Result<std::vector<bool>> VerifyNote(const Note& note, const std::vector<NoteKey>& keys);

}  // namespace keyescrow::envelope
