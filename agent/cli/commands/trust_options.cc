// agent-key and trust: whose signatures count.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr Example kKeyShowExamples[] = {
    {"keyescrow agent-key show", "its thumbprint, and whether it lives in the TPM"},
    {"keyescrow agent-key show --json", "the same for a program"},
};
constexpr std::uint8_t kKeyShowExits[] = {0, 2, 4, 5, 8, 9};

constexpr OptionSpec kKeyExportOptions[] = {
    Option<&AgentKeyExportOptions::output>("--output", "SINK",
                                           "where it goes; without it, standard output")
        .Letter('o')
        .File(),
};
constexpr Example kKeyExportExamples[] = {
    {"keyescrow agent-key export -o db1.pub", "the public key, for an auditor or another host"},
    {"keyescrow agent-key export > db1.pub", "the same, by redirection"},
};
constexpr std::uint8_t kKeyExportExits[] = {0, 2, 4, 5, 8, 9, 11, 12};

constexpr OptionSpec kAddArguments[] = {
    Argument<&TrustAddOptions::agent>("THUMBPRINT|FILE",
                                      "an agent's thumbprint, or its exported public key")
        .File(),
};
constexpr OptionSpec kAddOptions[] = {
    Option<&TrustAddOptions::hosts>("--host", "HOST", "for this host alone; repeatable"),
    Option<&TrustAddOptions::keys>("--key", "PATTERN",
                                   "for these key names alone, e.g. 'prod/db/**'; repeatable"),
};
constexpr Example kAddExamples[] = {
    {"keyescrow trust add THUMBPRINT", "as printed by 'init' on the other host"},
    {"keyescrow trust add db1.pub --host db1 --key 'prod/db/**'",
     "for one host and its keys alone"},
};
constexpr std::uint8_t kAddExits[] = {0, 2, 4, 7, 8, 9};

constexpr Example kListExamples[] = {
    {"keyescrow trust list", "the trusted agents, with their hosts and key names"},
    {"keyescrow trust list --json", "the same for a program"},
};
constexpr std::uint8_t kListExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kRemoveArguments[] = {
    Argument<&TrustRemoveOptions::agent>("THUMBPRINT", "a trusted agent"),
};
constexpr Example kRemoveExamples[] = {
    {"keyescrow trust remove THUMBPRINT", "its envelopes no longer open here"},
    {"keyescrow trust remove THUMBPRINT --yes", "without asking"},
};
constexpr std::uint8_t kRemoveExits[] = {0, 2, 4, 8, 9};

}  // namespace

constexpr CommandSpec kAgentKeyShowCommand = {
    .name = "agent-key show",
    .purpose = "show this host's agent key and its thumbprint",
    .examples = kKeyShowExamples,
    .exits = kKeyShowExits,
    .make = &MakeOptions<AgentKeyShowOptions>,
};

constexpr CommandSpec kAgentKeyExportCommand = {
    .name = "agent-key export",
    .purpose = "write the public half of this host's agent key",
    .options = kKeyExportOptions,
    .examples = kKeyExportExamples,
    .exits = kKeyExportExits,
    .make = &MakeOptions<AgentKeyExportOptions>,
};

constexpr CommandSpec kTrustAddCommand = {
    .name = "trust add",
    .purpose = "trust another host's agent",
    .arguments = kAddArguments,
    .options = kAddOptions,
    .details =
        "Compare the thumbprint by a way that an attacker does not hold: a call, a sheet. Under a "
        "signed policy that enforces, --host and --key must narrow the trust. Keys here that the "
        "agent signed and that are beyond it are told: they are listed, and do not open.",
    .examples = kAddExamples,
    .exits = kAddExits,
    .make = &MakeOptions<TrustAddOptions>,
};

constexpr CommandSpec kTrustListCommand = {
    .name = "trust list",
    .purpose = "list the trusted agents",
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<TrustListOptions>,
};

constexpr CommandSpec kTrustRemoveCommand = {
    .name = "trust remove",
    .purpose = "trust an agent no longer",
    .arguments = kRemoveArguments,
    .details =
        "First tells which keys here its agent signed, which will then not open here, and which "
        "paths are sealed to the TPM of its host.",
    .examples = kRemoveExamples,
    .exits = kRemoveExits,
    .make = &MakeOptions<TrustRemoveOptions>,
};

}  // namespace keyescrow::agent
