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
    Option<&WhatIfOptions::pack>("--in", "PACK",
                                 "of the keys in this evidence pack, which is verified first")
        .File(),
    Option<&WhatIfOptions::trust>("--trust", "FILE",
                                  "the pack's agent, as 'agent-key export' wrote it")
        .File(),
    Option<&WhatIfOptions::agent>("--agent", "THUMBPRINT", "trust this agent's pack"),
};
constexpr Example kWhatIfExamples[] = {
    {"keyescrow what-if --lose token:ops", "which keys would be lost with that token"},
    {"keyescrow what-if --steal host:db1 --steal password",
     "what a thief of that host opens who knows the password"},
    {"keyescrow what-if --lose officer:alice --lose officer:bob", "whether two officers may leave"},
    {"keyescrow what-if --lose host:db1 --in db1.tar --trust db1.agent-key",
     "on an auditor's machine, which has no state"},
};
constexpr std::uint8_t kWhatIfExits[] = {0, 1, 2, 4, 8, 9};

Status CheckWhatIf(const CommandOptions& command) {
  const auto& options = std::get<WhatIfOptions>(command);
  if (options.pack.empty() && (!options.trust.empty() || !options.agent.empty())) {
    return UsageError("--trust and --agent are for --in PACK", "keyescrow what-if --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kWhatIfCommand = {
    .name = "what-if",
    .purpose = "tell which keys losses would destroy and thefts would open",
    .arguments = kWhatIfArguments,
    .options = kWhatIfOptions,
    .details =
        "X is password, token:NAME, officer:NAME, tpm:HOST, host:HOST or recovery-key:NAME. "
        "A host stands for its TPM, an officer for their token: by its public key, whatever other "
        "name "
        "it has in another key's paths.\n\n"
        "Losing and stealing are apart: what is stolen and gone is named in both.\n\n"
        "With --in, an evidence pack answers instead of this host's state, and says the same as "
        "the "
        "state that it was made of; a pack that does not verify, or that nobody vouches for, "
        "answers nothing (exit 4).",
    .examples = kWhatIfExamples,
    .exits = kWhatIfExits,
    .make = &MakeOptions<WhatIfOptions>,
    .check = &CheckWhatIf,
};

}  // namespace keyescrow::agent
