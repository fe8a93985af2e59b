#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr OptionSpec kLogOptions[] = {
    Flag<&AuditLogOptions::json_lines>(
        "--json-lines", "one JSON object a line: seq, leaf_hash, and the entry as it is hashed"),
    Option<&AuditLogOptions::since>("--since", "SEQ", "begin with this entry's number"),
};
constexpr Example kLogExamples[] = {
    {"keyescrow audit log", "every entry, oldest first"},
    {"keyescrow audit log --json-lines --since 1200",
     "for a collector that has entry 1200: its leaf hash must still be the same"},
    {"keyescrow audit log --json | jq '.entries[] | select(.type == \"restore.completed\")'",
     "who restored what, and why"},
};
constexpr std::uint8_t kLogExits[] = {0, 2, 4, 8, 9};

constexpr Example kCheckpointExamples[] = {
    {"keyescrow audit checkpoint > db1.checkpoint", "keep it elsewhere"},
    {"keyescrow verify --since db1.checkpoint", "later: nothing was deleted or rewritten"},
};
constexpr std::uint8_t kCheckpointExits[] = {0, 2, 4, 5, 8, 9};

constexpr OptionSpec kProveArguments[] = {
    Argument<&AuditProveOptions::name>("NAME", "an escrowed key"),
};
constexpr Example kProveExamples[] = {
    {"keyescrow audit prove prod/db > db.proof", "a proof that its entry is in the log"},
    {"keyescrow audit prove prod/db --json", "the same for a program"},
};
constexpr std::uint8_t kProveExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kAnchorOptions[] = {
    Flag<&AuditAnchorOptions::renew>("--new",
                                     "a new counter, where the old one was removed from the TPM"),
    Option<&AuditAnchorOptions::accept>(
        "--accept", "REASON",
        "go on although the counter is not where the log has it, or is not the log's; logged"),
};
constexpr Example kAnchorExamples[] = {
    {"keyescrow audit anchor", "now; by a timer every hour it also covers every restore"},
    {"keyescrow audit anchor --accept 'store put back from the backup of May 3'",
     "after a mismatch that is explained"},
};
constexpr std::uint8_t kAnchorExits[] = {0, 2, 4, 5, 8, 9, 10};

}  // namespace

constexpr CommandSpec kAuditLogCommand = {
    .name = "audit log",
    .purpose = "show the entries of the audit log",
    .options = kLogOptions,
    .examples = kLogExamples,
    .exits = kLogExits,
    .make = &MakeOptions<AuditLogOptions>,
};

constexpr CommandSpec kAuditCheckpointCommand = {
    .name = "audit checkpoint",
    .purpose = "print the newest signed checkpoint of the log",
    .details = "A checkpoint kept on another machine shows a log that was cut or rewritten.",
    .examples = kCheckpointExamples,
    .exits = kCheckpointExits,
    .make = &MakeOptions<AuditCheckpointOptions>,
};

constexpr CommandSpec kAuditProveCommand = {
    .name = "audit prove",
    .purpose = "prove that a key's newest entry is in the log",
    .arguments = kProveArguments,
    .details =
        "The proof (c2sp.org/tlog-proof@v1) is checked offline against the agent's public key.",
    .examples = kProveExamples,
    .exits = kProveExits,
    .make = &MakeOptions<AuditProveOptions>,
};

constexpr CommandSpec kAuditAnchorCommand = {
    .name = "audit anchor",
    .purpose = "anchor the log at a counter in the TPM",
    .options = kAnchorOptions,
    .details =
        "The TPM counts one up and certifies the counter with the log's newest checkpoint; an "
        "older "
        "store that is put back then shows. Commands that change something do it by themselves, at "
        "most once an hour; restores leave it to the next command. Where init made no counter, "
        "this "
        "makes it.",
    .examples = kAnchorExamples,
    .exits = kAnchorExits,
    .make = &MakeOptions<AuditAnchorOptions>,
};

}  // namespace keyescrow::agent
