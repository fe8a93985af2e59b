// Foreign escrows: what clevis and systemd-cryptenroll made, as an inventory. It is read what they
// are, what opens them and what they survive, all as they say it of themselves. No byte of a key is
// kept, nothing is opened, nothing is asked over a network: keyescrow does not hold them, and has
// not proven them.
//
// Read are a clevis JWE (RFC 7516 compact, with the member `clevis` in its protected header: pins
// tpm2, tang, sss, null) and the tokens of a LUKS2 header: clevis' own, and systemd-tpm2, -fido2,
// -pkcs11 and -recovery as systemd's src/shared/*-util.h and cryptenroll write them. All of it is
// foreign bytes: at most 1 MiB, 256 KiB a header, 32 containers deep, no member twice, sss pins 4
// deep, 64 pins, names of 1 KiB.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

// ForeignPin: one thing that is needed, or a threshold of several.
struct ForeignPin {
  enum class Kind : std::uint8_t {
    kThreshold,    // `threshold` of `members`
    kTpm,          // a TPM 2.0, of the machine where it was made
    kTang,         // a Tang server, over the network
    kToken,        // a PKCS#11 token, with its PIN
    kFido2,        // a FIDO2 token
    kPin,          // a PIN that a TPM checks
    kRecoveryKey,  // a passphrase on paper
    kNothing,      // clevis' null pin: anybody opens it
    kUnknown,      // of a kind that this version does not know, or not as that kind is written
  };
  Kind kind = Kind::kUnknown;
  std::string name;    // Tang's URL, the token's URI, the unknown kind; "" else. CleanForeignName
  std::string detail;  // "pcrs sha256:0,7", "with user verification"; "" else
  unsigned threshold = 0;
  std::vector<ForeignPin> members = {};
};

struct ForeignEscrow {
  std::string place;   // as it was named, or absolute where it is of the store
  std::string item;    // "jwe", "token 3"
  std::string kind;    // "clevis-tpm2", "clevis-sss", "systemd-fido2", "unreadable" …
  std::string volume;  // UUID of the LUKS volume, or ""
  // slots: the volume's keyslots that it gives a secret for. A token without one opens nothing.
  std::vector<unsigned> slots;
  ForeignPin opens_by;
  Bytes32 sha256{};
  std::optional<std::int64_t> found;  // by `import`; none where it was read just now

  bool opens_nothing() const { return !volume.empty() && slots.empty(); }
};

// CleanForeignName percent-encodes what is not of a URI, and what joins pins in an expression: a
// name must not read as other factors than it is.
std::string CleanForeignName(std::string_view name);

// ForeignExpression writes the pins as a path expression would: "2 of (tpm, tang:http://a, fido2)".
// The words tang, fido2, pin and recovery-passphrase are none of keyescrow's own.
std::string ForeignExpression(const ForeignPin& pin);

// ForeignAnswer: minimal sets of what is named in the expression, as envelope/recoverability.h
// means them.
struct ForeignAnswer {
  bool open = false;           // nothing is needed: anybody opens it. The rest is then empty.
  std::size_t survives = 0;    // the loss of any so many
  std::size_t withstands = 0;  // the theft of any so many
  std::vector<std::vector<std::string>> losses;
  std::vector<std::vector<std::string>> thefts;
};
// ForeignRecoverability computes what it survives and what opens it; none where there is an unknown
// pin, and above 16 factors or 256 sets. Two pins of one label are one factor.
std::optional<ForeignAnswer> ForeignRecoverability(const ForeignPin& pin);

// ForeignCaveats: what else closes it, that is nobody's loss: changed PCRs, a Tang server's new
// keys.
std::vector<std::string> ForeignCaveats(const ForeignPin& pin);

// ParseClevisJwe reads a compact JWE. Errors: kSourceUnreadable with what is wrong.
Result<ForeignEscrow> ParseClevisJwe(std::string_view text);
// ParseLuksTokenJson reads a token of a LUKS2 header; none where its kind is not one of those
// above.
Result<std::optional<ForeignEscrow>> ParseLuksTokenJson(unsigned token, std::string_view json);

// LooksForeign tells by a file's first bytes whether it is a compact JWE or a LUKS volume, and so
// no envelope. False where it cannot be read. "file:" and "luks:" may stand before the path, here
// and below.
bool LooksForeign(const std::string& file);

// ReadForeign reads all that is at `file`. A token of a known kind that is not as that kind is
// written is of the kind "unreadable": it hides no other. Errors: kSourceUnreadable;
// ReadLuksHeader's; kNotFound where there is no such file, it is neither of the two, or a volume
// has no token of a known kind.
Result<std::vector<ForeignEscrow>> ReadForeign(const std::string& file);

struct ForeignImport {
  std::vector<ForeignEscrow> found;
  std::size_t num_new = 0;   // or changed
  std::size_t num_gone = 0;  // known of that place or volume, and no longer there
};
// ImportForeign takes what is at `file` into the inventory: an inventory.found for each that is new
// or changed, an inventory.gone for each that is gone. Nothing is logged where nothing changed. A
// volume is known by its UUID: found at another path, it moves, unless the old one still has it.
// Errors: ReadForeign's, but for kNotFound where the inventory knows that place: all is gone then.
Result<ForeignImport> ImportForeign(Agent& agent, const std::string& file);

// ForeignInventory returns what was imported, by place. A row that does not parse is of an unknown
// pin; importing it again mends it. Errors: kStore*.
Result<std::vector<ForeignEscrow>> ForeignInventory(Agent& agent);

// MeansForeign tells whether `import` of that file is one of ImportForeign: it looks so, or what
// was imported from there is gone and no envelope is there now. Errors: kStore*.
Result<bool> MeansForeign(Agent& agent, const std::string& file);

}  // namespace keyescrow::agent
