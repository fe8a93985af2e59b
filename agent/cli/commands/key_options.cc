#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using Add = KeyAddOptions;

constexpr OptionSpec kAddArguments[] = {
    Argument<&Add::name>("NAME", "the key's name, e.g. prod/db/main"),
};
constexpr OptionSpec kAddOptions[] = {
    Option<&Add::source>("--source", "SOURCE", "where the application keeps the key")
        .Required()
        .File(),
    Option<&Add::paths>("--path", "EXPR", "a recovery path that its backup makes; repeatable"),
};
constexpr Example kAddExamples[] = {
    {"keyescrow key add prod/db --source /etc/db/master.key --path 'password & token:ops'",
     "declare a key in a file"},
    {"keyescrow key add disk/root --source /etc/keys/root.key --path 'password & token:ops' --path "
     "'password & tpm'",
     "declare the key file of a LUKS volume, with two paths"},
};
constexpr std::uint8_t kAddExits[] = {0, 2, 4, 8, 9, 11};

constexpr Example kListExamples[] = {
    {"keyescrow key list", "what is declared, and what of it is escrowed"},
    {"keyescrow key list --json", "the same for a program"},
};
constexpr std::uint8_t kListExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kRemoveArguments[] = {
    Argument<&KeyRemoveOptions::name>("NAME", "a declared key"),
};
constexpr Example kRemoveExamples[] = {
    {"keyescrow key remove prod/old", "take back the declaration; its envelopes stay"},
    {"keyescrow key remove prod/old --yes", "without asking"},
};
constexpr std::uint8_t kRemoveExits[] = {0, 2, 4, 8, 9, 11};

}  // namespace

constexpr CommandSpec kKeyAddCommand = {
    .name = "key add",
    .purpose = "declare a key that must be escrowed",
    .arguments = kAddArguments,
    .options = kAddOptions,
    .details = "What is declared and not escrowed is a finding of 'status'. The key is not read.",
    .examples = kAddExamples,
    .exits = kAddExits,
    .make = &MakeOptions<Add>,
};

constexpr CommandSpec kKeyListCommand = {
    .name = "key list",
    .purpose = "list the declared keys",
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<KeyListOptions>,
};

constexpr CommandSpec kKeyRemoveCommand = {
    .name = "key remove",
    .purpose = "take back a declaration; what was escrowed stays",
    .arguments = kRemoveArguments,
    .examples = kRemoveExamples,
    .exits = kRemoveExits,
    .make = &MakeOptions<KeyRemoveOptions>,
};

}  // namespace keyescrow::agent
