#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = AdoptOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name_or_file>("NAME|FILE", "a portable .escrow file, or an imported key").File(),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::paths>("--path", "[ID=]EXPR",
                      "a recovery path on this host, e.g. 'password & token:ops'; repeatable")
        .Required(),
    Option<&O::as>("--as", "NAME", "the key's name here; without it, the one that it has"),
    Option<&O::via>("--via", "ID",
                    "the path of FILE that opens; without it, one whose factors are present"),
    Option<&O::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how passwords are stretched"),
    Option<&O::note>("--note", "TEXT",
                     "kept in clear in the envelope; without it, where the key came from"),
    Option<&O::reason>("--reason", "TEXT", "why; goes to the audit log"),
    Option<&O::ticket>("--ticket", "TEXT", "which ticket; goes to the audit log"),
    Option<&O::module>("--module", "SO", "the PKCS#11 module, where no token is registered").File(),
    Option<&O::agent>("--agent", "THUMBPRINT", "trust this signer of a file"),
    Flag<&O::use_last_try>("--use-last-try",
                           "go on although one try is left before a PIN or the TPM locks"),
};
constexpr Example kExamples[] = {
    {"keyescrow adopt db1.escrow --agent THUMBPRINT --path 'password & token:ops' --path "
     "'password & tpm'",
     "a key of a host that died, moved to this one"},
    {"keyescrow adopt prod/db --path 'password & tpm' --as prod/db-standby",
     "an imported key, under a name of its own"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

}  // namespace

constexpr CommandSpec kAdoptCommand = {
    .name = "adopt",
    .purpose = "give a key of another host recovery paths on this one",
    .arguments = kArguments,
    .options = kOptions,
    .password_options = kNewPasswordOptions<&O::secrets>,
    .pin_options = kPinOptions<&O::secrets>,
    .details =
        "The envelope is opened by one of its paths and its key escrowed anew, signed by this "
        "host's agent; the origin stands in the note and in the log. Nothing is overwritten: "
        "another key of the name is left alone. What the policy asks of a restore of the key (a "
        "reason, a ticket) it asks here too, and the new paths have to satisfy the rules of the "
        "name that the key had and of the one that it gets. The old envelope still opens as it "
        "did. A host that was rebuilt without its state has another agent under its old name: what "
        "the old one signed is adopted like any other host's. Where the key goes is another step: "
        "'keyescrow restore'.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
};

}  // namespace keyescrow::agent
