// export, import, import-event: what leaves and enters the store as a file.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr OptionSpec kExportArguments[] = {
    Argument<&ExportOptions::name>("NAME", "an escrowed key"),
};
constexpr OptionSpec kExportOptions[] = {
    Option<&ExportOptions::output>("--output", "SINK", "where the file goes")
        .Letter('o')
        .Required()
        .File(),
};
constexpr Example kExportExamples[] = {
    {"keyescrow export prod/db -o /mnt/usb/db.escrow", "a file for the safe"},
    {"keyescrow export prod/db -o - | ssh vault 'cat > db.escrow'", "to another machine"},
};
constexpr std::uint8_t kExportExits[] = {0, 2, 4, 7, 8, 9, 11, 12};

constexpr OptionSpec kImportArguments[] = {
    Argument<&ImportOptions::file>(
        "FILE", "a portable .escrow file; or a clevis JWE, or a LUKS2 volume, for the inventory")
        .File(),
};
constexpr Example kImportExamples[] = {
    {"keyescrow trust add THUMBPRINT", "first say whose signature counts"},
    {"keyescrow import db.escrow", "then take the file into the store"},
    {"keyescrow import /dev/sda3", "what clevis and systemd-cryptenroll bound a volume to"},
};
constexpr std::uint8_t kImportExits[] = {0, 2, 4, 7, 8, 9};

constexpr OptionSpec kEventArguments[] = {
    Argument<&ImportEventOptions::file>("FILE", "a keyescrow-restore-ID.json").File(),
};
constexpr Example kEventExamples[] = {
    {"keyescrow import-event keyescrow-restore-7f3a.json", "log a restore that was done elsewhere"},
    {"keyescrow import-event keyescrow-restore-7f3a.json --json", "the same from a script"},
};
constexpr std::uint8_t kEventExits[] = {0, 2, 4, 8, 9};

}  // namespace

constexpr CommandSpec kExportCommand = {
    .name = "export",
    .purpose = "write a portable file with the key's receipt",
    .arguments = kExportArguments,
    .options = kExportOptions,
    .details =
        "The file holds the sealed envelope, the receipt of the audit log and no secret. SINK: "
        "file:PATH or a path, - (standard output), exec:CMD.",
    .examples = kExportExamples,
    .exits = kExportExits,
    .make = &MakeOptions<ExportOptions>,
};

constexpr CommandSpec kImportCommand = {
    .name = "import",
    .purpose = "take a portable file into the store",
    .arguments = kImportArguments,
    .details =
        "The file must be signed by this host's agent or by one that 'trust add' registered, and "
        "the policy in force must allow its paths for the key's name.\n"
        "Of a file of clevis (tpm2, tang, sss), or a LUKS2 volume with tokens of clevis or "
        "systemd-cryptenroll, no key is read: 'list' and 'status' then show what opens it and what "
        "it survives, as it says it of itself, not held by keyescrow and not proven. Importing it "
        "again brings the inventory up to date, also where it is gone.",
    .examples = kImportExamples,
    .exits = kImportExits,
    .make = &MakeOptions<ImportOptions>,
};

constexpr CommandSpec kImportEventCommand = {
    .name = "import-event",
    .purpose = "log a restore that was done without a state",
    .arguments = kEventArguments,
    .details =
        "FILE is what a restore or a drill without state wrote, unchanged; of events of other "
        "types "
        "nothing is taken. Nothing signed it: 'audit log' and 'verify' say which "
        "entries were imported, and they prove no path and count in no figure of drills.",
    .examples = kEventExamples,
    .exits = kEventExits,
    .make = &MakeOptions<ImportEventOptions>,
};

}  // namespace keyescrow::agent
