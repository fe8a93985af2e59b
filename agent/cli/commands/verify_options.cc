#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = VerifyOptions;

constexpr OptionSpec kArguments[] = {
    OptionalArgument<&O::names_or_files>("NAME|FILE|PACK|STATE-FOLDER",
                                         "what to check; without it, the whole state of this host")
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
    Option<&O::challenge>("--challenge", "FILE",
                          "of a pack: what 'audit sample' drew must have been drilled under it")
        .File(),
    Option<&O::expected>("--expected", "FILE",
                         "and the tokens' answers must be these, which the auditor kept")
        .File(),
    Option<&O::answers>("--answers", "FILE", "the answers that the host's drill wrote").File(),
    Option<&O::threads>("--threads", "N", "how many at a time; else the processors, at most 4"),
    Flag<&O::quick>("--quick", "hash and compare everything, verify few signatures: never a pass"),
    Flag<&O::record>("--record", "log the outcome: reports and monitors then tell of it"),
};
constexpr Example kExamples[] = {
    {"keyescrow verify", "every envelope, receipt and checkpoint of this host"},
    {"keyescrow verify db.escrow --agent THUMBPRINT",
     "a file, on another machine, without a secret"},
    {"keyescrow verify --since last-month.checkpoint", "and that nothing was rewritten since"},
    {"keyescrow verify --record", "by a timer: the report then has when it was last verified"},
    {"keyescrow verify db1.tar ./copy-of-state --trust db1.agent-key",
     "an evidence pack and a copied state folder, on another machine"},
    {"keyescrow verify db1.tar --trust db1.agent-key --challenge q3.challenge --expected "
     "q3.expected --answers q3.answers",
     "that the host drilled what the auditor drew, and its tokens answered"},
};
constexpr std::uint32_t kMaxThreads = 64;

Status CheckVerify(const CommandOptions& any) {
  const auto& options = std::get<O>(any);
  if (options.threads && (*options.threads == 0 || *options.threads > kMaxThreads)) {
    return UsageError("--threads takes 1 to 64", "keyescrow verify --help");
  }
  if (options.record && (!options.names_or_files.empty() || options.quick)) {
    return UsageError("--record is for all of this host's state: without names, without --quick",
                      "keyescrow verify --help");
  }
  if (options.challenge.empty() && !(options.expected.empty() && options.answers.empty())) {
    return UsageError("--expected and --answers are for --challenge", "keyescrow verify --help");
  }
  if (options.expected.empty() != options.answers.empty()) {
    return UsageError("--expected and --answers are compared: give both, or neither",
                      "keyescrow verify --help");
  }
  if (!options.challenge.empty() && options.names_or_files.size() != 1) {
    return UsageError("--challenge is for one evidence pack", "keyescrow verify --help");
  }
  return Ok();
}

constexpr std::uint8_t kExits[] = {0, 1, 2, 4, 8, 9};

}  // namespace

constexpr CommandSpec kVerifyCommand = {
    .name = "verify",
    .purpose = "check everything that can be checked without a secret",
    .arguments = kArguments,
    .options = kOptions,
    .details =
        "Every signature, every entry and envelope hashed, each against the other, and what the "
        "store keeps beside them against the log. It also says what it did not check: whether a "
        "path opens is proven by its factors alone. A copied state folder is read and never "
        "written, and an evidence pack is one file; the keys of either count only where --trust or "
        "--agent vouches for them.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &CheckVerify,
};

}  // namespace keyescrow::agent
