#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr OptionSpec kOptions[] = {
    Option<&InitOptions::policy>("--policy", "FILE",
                                 "put this policy in force; its signatures are in FILE.sig")
        .File(),
    Option<&InitOptions::policy_keys>("--policy-key", "VKEY",
                                      "whose signature of policies counts here; repeatable"),
};
constexpr Example kExamples[] = {
    {"keyescrow init", "as root: /etc/keyescrow/agent.toml and /var/lib/keyescrow"},
    {"keyescrow init --tpm none", "keep the agent key in a file, although there is a TPM"},
    {"keyescrow init --policy policy.toml --policy-key 'alice+1a2b3c4d+AQ…'",
     "under the security team's policy from the start"},
    {"keyescrow init --state ./state --config ./agent.toml", "try it out in this folder"},
};
constexpr std::uint8_t kExits[] = {0, 2, 4, 5, 7, 9, 10};

Status Check(const CommandOptions& command) {
  const auto& options = std::get<InitOptions>(command);
  if (options.policy.empty() != options.policy_keys.empty()) {
    return UsageError("--policy and --policy-key come together", "keyescrow init --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kInitCommand = {
    .name = "init",
    .purpose = "make the state, the store and the agent key of this host",
    .options = kOptions,
    .details =
        "The agent key signs envelopes and log checkpoints. It lives in the TPM where there is "
        "one, "
        "else in a file: which of the two is said. Note the thumbprint that init prints: by it "
        "other machines trust what this host signs.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<InitOptions>,
    .check = &Check,
};

}  // namespace keyescrow::agent
