#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr Example kExamples[] = {
    {"keyescrow init", "as root: /etc/keyescrow/agent.toml and /var/lib/keyescrow"},
    {"keyescrow init --tpm none", "keep the agent key in a file, although there is a TPM"},
    {"keyescrow init --state ./state --config ./agent.toml", "try it out in this folder"},
};
constexpr std::uint8_t kExits[] = {0, 2, 5, 9, 10};

}  // namespace

constexpr CommandSpec kInitCommand = {
    .name = "init",
    .purpose = "make the state, the store and the agent key of this host",
    .details =
        "The agent key signs envelopes and log checkpoints. It lives in the TPM where there is "
        "one, "
        "else in a file: which of the two is said. Note the thumbprint that init prints: by it "
        "other machines trust what this host signs.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<InitOptions>,
};

}  // namespace keyescrow::agent
