#include "envelope/signed_note.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/base/utf8.h"
#include "envelope/note_signer.h"

namespace keyescrow::envelope {
namespace {

constexpr std::uint8_t kAlgEd25519 = 0x01;
constexpr std::uint8_t kAlgEcdsa = 0x02;
constexpr std::string_view kDash = "\xE2\x80\x94 ";  // U+2014 and a space

Error Damaged(std::string message) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator, std::move(message),
               "take the note again from where it was made, or compare it with a copy");
}

KeyId FirstFour(const Bytes32& hash) { return {hash[0], hash[1], hash[2], hash[3]}; }

bool IsUnicodeSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string SignatureLine(const NoteKey& key, ByteView signature) {
  Bytes blob(key.id.begin(), key.id.end());
  blob.insert(blob.end(), signature.begin(), signature.end());
  return fmt::format("{}{} {}\n", kDash, key.name, EncodeBase64(blob));
}

}  // namespace

bool IsValidNoteName(std::string_view name) {
  if (name.empty()) return false;
  while (!name.empty()) {
    const CodePoint c = FirstCodePoint(name);
    if (c.size_bytes == 0 || c.value < 0x20 || c.value == '+' || IsUnicodeSpace(c.value)) {
      return false;
    }
    name.remove_prefix(c.size_bytes);
  }
  return true;
}

NoteKey NoteKey::Ed25519(std::string name, const Bytes32& public_key) {
  static constexpr std::uint8_t kSeparator[] = {'\n', kAlgEd25519};
  const KeyId id = FirstFour(Sha256({AsBytes(name), ByteView(kSeparator), public_key}));
  return {std::move(name), id, public_key, std::nullopt};
}

NoteKey NoteKey::P256(std::string name, const P256Point& public_key) {
  return {std::move(name), FirstFour(Sha256(public_key.Spki())), std::nullopt, public_key};
}

std::string NoteKey::Vkey() const {
  Bytes blob;
  if (ed25519) {
    blob.push_back(kAlgEd25519);
    blob.insert(blob.end(), ed25519->begin(), ed25519->end());
  } else {
    const auto spki = p256->Spki();
    blob.push_back(kAlgEcdsa);
    blob.insert(blob.end(), spki.begin(), spki.end());
  }
  return fmt::format("{}+{}+{}", name, ToHex(id), EncodeBase64(blob));
}

std::optional<NoteKey> NoteKey::FromVkey(std::string_view text) {
  const std::size_t first = text.find('+');
  if (first == std::string_view::npos) return std::nullopt;
  const std::size_t second = text.find('+', first + 1);  // base64 may have more of them
  if (second == std::string_view::npos) return std::nullopt;
  const std::string_view name = text.substr(0, first);
  const auto blob = DecodeBase64(text.substr(second + 1));
  if (!IsValidNoteName(name) || !blob || blob->empty()) return std::nullopt;
  const ByteView key_bytes = ByteView(*blob).subspan(1);
  std::optional<NoteKey> key;
  if ((*blob)[0] == kAlgEd25519 && key_bytes.size() == 32) {
    Bytes32 public_key;
    std::copy(key_bytes.begin(), key_bytes.end(), public_key.begin());
    key = Ed25519(std::string(name), public_key);
  } else if ((*blob)[0] == kAlgEcdsa) {
    const auto point = P256Point::FromSpki(key_bytes);
    if (!point) return std::nullopt;
    key = P256(std::string(name), *point);
  }
  if (!key || ToHex(key->id) != text.substr(first + 1, second - first - 1)) return std::nullopt;
  return key;
}

bool NoteKey::Verify(std::string_view text, ByteView signature) const {
  if (ed25519) {
    Bytes64 raw;
    if (signature.size() != raw.size()) return false;
    std::copy(signature.begin(), signature.end(), raw.begin());
    return Ed25519Verify(*ed25519, AsBytes(text), raw);
  }
  const auto raw = EcdsaSignatureFromDer(signature);
  return raw && VerifyEs256(*p256, Sha256(AsBytes(text)), *raw);
}

Result<std::string> SignLineEd25519(const NoteKey& key, const SecretBytes& seed,
                                    std::string_view text) {
  ASSIGN_OR_RETURN(const Bytes64 signature, Ed25519Sign(seed, AsBytes(text)));
  return SignatureLine(key, signature);
}

Result<std::string> Ed25519NoteSigner::SignLine(const SecretBytes& seed, std::string_view text) {
  if (!pair_ || !pair_->IsOf(seed)) {
    ASSIGN_OR_RETURN(Ed25519Pair pair, Ed25519Pair::FromSeed(seed));
    pair_.emplace(std::move(pair));
  }
  ASSIGN_OR_RETURN(const Bytes64 signature, pair_->Sign(AsBytes(text)));
  return SignatureLine(key_, signature);
}

Result<std::string> SignLineP256(const NoteKey& key, Signer& signer, std::string_view text) {
  ASSIGN_OR_RETURN(const Bytes64 signature, signer.SignDigest(Sha256(AsBytes(text))));
  return SignatureLine(key, EcdsaSignatureToDer(signature));
}

Result<Note> ParseNote(std::string_view bytes) {
  if (bytes.size() > kMaxNoteBytes) return Damaged("the note is too long");
  const bool control = std::any_of(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n';
  });
  if (control || !IsUtf8(bytes)) return Damaged("the note has characters that a note may not have");
  const std::size_t split = bytes.rfind("\n\n");
  if (split == std::string_view::npos) return Damaged("the note has no signatures");
  Note note;
  note.text = std::string(bytes.substr(0, split + 1));
  std::string_view lines = bytes.substr(split + 2);
  if (lines.empty() || lines.back() != '\n') return Damaged("the note's signatures are cut off");
  while (!lines.empty()) {
    const std::size_t end = lines.find('\n');
    std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end + 1);
    if (!line.starts_with(kDash)) return Damaged("the note has a malformed signature line");
    line.remove_prefix(kDash.size());
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return Damaged("the note has a malformed signature line");
    const std::string_view name = line.substr(0, space);
    const auto blob = DecodeBase64(line.substr(space + 1));
    if (!IsValidNoteName(name) || !blob || blob->size() < 5 ||
        note.signatures.size() == kMaxNoteSignatures) {
      return Damaged("the note has a malformed signature line");
    }
    NoteSignature signature;
    signature.name = std::string(name);
    std::copy_n(blob->begin(), 4, signature.id.begin());
    signature.signature.assign(blob->begin() + 4, blob->end());
    note.signatures.push_back(std::move(signature));
  }
  return note;
}

Result<std::vector<bool>> VerifyNote(const Note& note, const std::vector<NoteKey>& keys) {
  std::vector<bool> verified(keys.size(), false);
  for (const NoteSignature& line : note.signatures) {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].name != line.name || keys[i].id != line.id) continue;
      if (!keys[i].Verify(note.text, line.signature)) {
        return Damaged(fmt::format("the signature of key {} does not verify", ToHex(line.id)));
      }
      verified[i] = true;
    }
  }
  return verified;
}

}  // namespace keyescrow::envelope
