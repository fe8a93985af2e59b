#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using Create = RecoveryKeyCreateOptions;
using Export = RecoveryKeyExportOptions;
using Import = RecoveryKeyImportOptions;
using Password = RecoveryKeyPasswordOptions;

constexpr OptionSpec kCreateArguments[] = {
    Argument<&Create::name>("NAME", "what paths call it: recovery-key:NAME"),
};
constexpr OptionSpec kCreateOptions[] = {
    Option<&Create::path>("--path", "EXPR",
                          "what opens its private half, e.g. 'password & token:ops'")
        .Required(),
    Option<&Create::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how its password is stretched"),
    Flag<&Create::prove_none>("--prove-none", "do not open it once to prove it"),
};
constexpr Example kCreateExamples[] = {
    {"keyescrow recovery-key create security-team --path 'password & token:ops'",
     "a recovery key that token and password open together"},
    {"keyescrow backup prod/db --from /etc/db/master.key --path recovery-key:security-team",
     "then keys are escrowed to it with nobody present"},
};
constexpr std::uint8_t kCreateExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

constexpr Example kListExamples[] = {
    {"keyescrow recovery-key list", "names, what opens them, and when they were last opened"},
    {"keyescrow recovery-key list --json", "the same for a program"},
};
constexpr std::uint8_t kListExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kShowArguments[] = {
    Argument<&RecoveryKeyShowOptions::name>("NAME", "a registered recovery key"),
};
constexpr Example kShowExamples[] = {
    {"keyescrow recovery-key show security-team",
     "its thumbprint, the SHA-256 of its record, and what is escrowed to it"},
    {"keyescrow recovery-key show security-team --json", "the same for a program"},
};
constexpr std::uint8_t kShowExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kExportArguments[] = {
    Argument<&Export::name>("NAME", "a registered recovery key"),
};
constexpr OptionSpec kExportOptions[] = {
    Option<&Export::output>("--output", "SINK", "where it goes; without it, standard output")
        .Letter('o')
        .File(),
};
constexpr Example kExportExamples[] = {
    {"keyescrow recovery-key export security-team -o security-team.recovery-key",
     "the public record, for other hosts"},
    {"keyescrow recovery-key export security-team", "the same on standard output"},
};
constexpr std::uint8_t kExportExits[] = {0, 2, 4, 8, 9, 11, 12};

constexpr OptionSpec kImportArguments[] = {
    Argument<&Import::file>("FILE", "what 'recovery-key export' wrote on another host"),
};
constexpr OptionSpec kImportOptions[] = {
    Option<&Import::sha256>("--sha256", "HASH",
                            "the record's SHA-256, as 'recovery-key show' tells it there"),
};
constexpr Example kImportExamples[] = {
    {"keyescrow recovery-key import security-team.recovery-key",
     "shows the SHA-256 of its record, and asks"},
    {"keyescrow recovery-key import security-team.recovery-key --sha256 HASH",
     "from a script, with the hash from the host that made it"},
};
constexpr std::uint8_t kImportExits[] = {0, 2, 4, 7, 8, 9};

constexpr OptionSpec kPasswordArguments[] = {
    Argument<&Password::name>("NAME", "a registered recovery key"),
};
constexpr OptionSpec kPasswordFlags[] = {
    Option<&Password::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how the new password is stretched"),
};
constexpr Example kPasswordExamples[] = {
    {"keyescrow recovery-key password security-team", "asks for the old and the new one"},
    {"keyescrow recovery-key password security-team --password-file old --new-password-file new "
     "--pin-file pin",
     "from a script"},
};
constexpr std::uint8_t kPasswordExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

constexpr OptionSpec kRetireArguments[] = {
    Argument<&RecoveryKeyRetireOptions::name>("NAME", "a registered recovery key"),
};
constexpr Example kRetireExamples[] = {
    {"keyescrow recovery-key retire security-team", "list the keys that it strands, then ask"},
    {"keyescrow recovery-key retire security-team --yes", "without asking"},
};
constexpr std::uint8_t kRetireExits[] = {0, 1, 2, 4, 7, 8, 9};

}  // namespace

constexpr CommandSpec kRecoveryKeyCreateCommand = {
    .name = "recovery-key create",
    .purpose = "make a recovery key, to which keys are escrowed unattended",
    .arguments = kCreateArguments,
    .options = kCreateOptions,
    .password_options = kNewPasswordOptions<&Create::secrets>,
    .pin_options = kPinOptions<&Create::secrets>,
    .details =
        "A key pair is made, its private half protected by the path, all of whose factors are then "
        "needed; the record is registered here and copied into each envelope. A path "
        "recovery-key:NAME needs the public half alone: no token, password or TPM.\n"
        "Whoever opens a recovery key opens every envelope that goes to it, past and future.",
    .examples = kCreateExamples,
    .exits = kCreateExits,
    .make = &MakeOptions<Create>,
};

constexpr CommandSpec kRecoveryKeyListCommand = {
    .name = "recovery-key list",
    .purpose = "list the recovery keys that are registered here",
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<RecoveryKeyListOptions>,
};

constexpr CommandSpec kRecoveryKeyShowCommand = {
    .name = "recovery-key show",
    .purpose = "show one recovery key, and what is escrowed to it",
    .arguments = kShowArguments,
    .details = "That it opens is proven by 'keyescrow drill recovery-key:NAME'.",
    .examples = kShowExamples,
    .exits = kShowExits,
    .make = &MakeOptions<RecoveryKeyShowOptions>,
};

constexpr CommandSpec kRecoveryKeyExportCommand = {
    .name = "recovery-key export",
    .purpose = "write a recovery key's record for other hosts",
    .arguments = kExportArguments,
    .options = kExportOptions,
    .details =
        "The record is public: the private half in it is encrypted under its factors. Tell its "
        "SHA-256 to the other host by another way than the file.",
    .examples = kExportExamples,
    .exits = kExportExits,
    .make = &MakeOptions<Export>,
};

constexpr CommandSpec kRecoveryKeyImportCommand = {
    .name = "recovery-key import",
    .purpose = "register a recovery key that another host made",
    .arguments = kImportArguments,
    .options = kImportOptions,
    .details =
        "Where the policy pins the public half under this name, that decides; else the SHA-256 of "
        "the record is shown and has to be confirmed. A record that somebody changed would strand "
        "every key that is escrowed to it.",
    .examples = kImportExamples,
    .exits = kImportExits,
    .make = &MakeOptions<Import>,
};

constexpr CommandSpec kRecoveryKeyPasswordCommand = {
    .name = "recovery-key password",
    .purpose = "change a recovery key's password",
    .arguments = kPasswordArguments,
    .options = kPasswordFlags,
    .password_options = kNewPasswordOptions<&Password::secrets>,
    .pin_options = kPinOptions<&Password::secrets>,
    .details =
        "The registered record is protected anew; restores here use it, for envelopes of before "
        "too. Envelopes that were made before keep a copy with the old password, and hosts that "
        "imported the record need it again.\n"
        "Whoever knows the old password and has its token opens every past and future envelope by "
        "any old copy: after a suspected theft make a new recovery key, back every key up again, "
        "and rotate them.",
    .examples = kPasswordExamples,
    .exits = kPasswordExits,
    .make = &MakeOptions<Password>,
};

constexpr CommandSpec kRecoveryKeyRetireCommand = {
    .name = "recovery-key retire",
    .purpose = "escrow nothing more to a recovery key, after listing what it strands",
    .arguments = kRetireArguments,
    .details =
        "What is escrowed to it stays, and opens as before: keys with no other path are listed, to "
        "be backed up again before its token or password is given up.",
    .examples = kRetireExamples,
    .exits = kRetireExits,
    .make = &MakeOptions<RecoveryKeyRetireOptions>,
};

}  // namespace keyescrow::agent
