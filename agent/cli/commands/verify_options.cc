#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = VerifyOptions;

constexpr OptionSpec kArguments[] = {
    OptionalArgument<&O::names_or_files>("NAME|FILE", "what to check; without it, the whole store")
        .File(),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::trust>("--trust", "FILE",
                      "trust this agent and its log: a file of 'agent-key export'")
        .File(),
    Option<&O::agent>("--agent", "THUMBPRINT", "trust this agent"),
    Option<&O::since>("--since", "CHECKPOINT",
                      "a checkpoint kept from before: the log must extend it")
        .File(),
};
constexpr Example kExamples[] = {
    {"keyescrow verify", "every envelope, receipt and checkpoint of this host"},
    {"keyescrow verify db.escrow --agent THUMBPRINT",
     "a file, on another machine, without a secret"},
    {"keyescrow verify --since last-month.checkpoint", "and that nothing was rewritten since"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 4, 8, 9};

}  // namespace

constexpr CommandSpec kVerifyCommand = {
    .name = "verify",
    .purpose = "check everything that can be checked without a secret",
    .arguments = kArguments,
    .options = kOptions,
    .details =
        "Signatures, receipts and the log's consistency. It also says what it did not check: "
        "whether "
        "a path opens is proven by its factors alone.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
};

}  // namespace keyescrow::agent
