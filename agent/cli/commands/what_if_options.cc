// what-if: what losses and thefts would do.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr OptionSpec kWhatIfArguments[] = {
    OptionalArgument<&WhatIfOptions::name>("NAME", "one key; without it, all"),
};
constexpr OptionSpec kWhatIfOptions[] = {
    Option<&WhatIfOptions::lose>("--lose", "X", "take X as lost; repeatable"),
    Option<&WhatIfOptions::steal>("--steal", "X", "take X as in a thief's hands; repeatable"),
};
constexpr Example kWhatIfExamples[] = {
    {"keyescrow what-if --lose token:ops", "which keys would be lost with that token"},
    {"keyescrow what-if --steal host:db1 --steal password",
     "what a thief of that host opens who knows the password"},
    {"keyescrow what-if --lose officer:alice --lose officer:bob", "whether two officers may leave"},
};
constexpr std::uint8_t kWhatIfExits[] = {0, 1, 2, 8, 9};

}  // namespace

constexpr CommandSpec kWhatIfCommand = {
    .name = "what-if",
    .purpose = "tell which keys losses would destroy and thefts would open",
    .arguments = kWhatIfArguments,
    .options = kWhatIfOptions,
    .details =
        "X is password, token:NAME, officer:NAME, tpm:HOST, host:HOST or recovery-key:NAME. "
        "A host stands for its TPM, an officer for their token.\n\n"
        "Losing and stealing are apart: what is stolen and gone is named in both.",
    .examples = kWhatIfExamples,
    .exits = kWhatIfExits,
    .make = &MakeOptions<WhatIfOptions>,
};

}  // namespace keyescrow::agent
