// audit sample: an auditor's draw, and the challenge that drill answers.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = AuditSampleOptions;

constexpr std::string_view kHelp = "keyescrow audit sample --help";

constexpr OptionSpec kOptions[] = {
    Option<&O::number>("--number", "N", "how many keys to draw").Letter('n').Required(),
    Option<&O::output>("--output", "FILE", "the challenge to write: a new file")
        .Letter('o')
        .Required()
        .File(),
    Option<&O::expected>("--expected", "FILE",
                         "also a nonce for each token of the drawn keys; FILE, which stays with "
                         "the auditor, gets the answers that only they can give")
        .File(),
    Option<&O::pack>("--in", "PACK", "draw from this evidence pack, which is verified first")
        .File(),
    Option<&O::trust>("--trust", "FILE", "the pack's agent, as 'agent-key export' wrote it").File(),
    Option<&O::agent>("--agent", "THUMBPRINT", "trust this agent's pack"),
};
constexpr Example kExamples[] = {
    {"keyescrow audit sample -n 25 --in db1.tar --trust db1.agent-key -o q3.challenge --expected "
     "q3.expected",
     "on the auditor's machine; only q3.challenge goes to the host"},
    {"keyescrow drill --challenge q3.challenge --answers q3.answers",
     "on the host, which then exports a new pack"},
    {"keyescrow verify db1-new.tar --trust db1.agent-key --challenge q3.challenge --expected "
     "q3.expected --answers q3.answers",
     "on the auditor's machine: everything that was drawn was drilled"},
};
constexpr std::uint8_t kExits[] = {0, 2, 4, 8, 9, 11};

Status Check(const CommandOptions& options) {
  const auto& sample = std::get<O>(options);
  if (sample.pack.empty() && (!sample.trust.empty() || !sample.agent.empty())) {
    return UsageError("--trust and --agent are for --in PACK", kHelp);
  }
  if (sample.expected == sample.output) {
    return UsageError("the challenge and the expected answers are two files", kHelp);
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kAuditSampleCommand = {
    .name = "audit sample",
    .purpose = "draw keys at random, and write the challenge that has them drilled",
    .options = kOptions,
    .details =
        "Each key is as likely to be drawn as any other, in its newest version. The challenge "
        "holds 32 fresh bytes, which every proof of the drill must carry: none was made before "
        "the draw. Without --in, the host draws from its own state, and could have chosen.\n\n"
        "'verify PACK --challenge' tells whether all that was drawn was drilled after the draw, "
        "and whether the tokens gave the answers that only they can give.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &Check,
};

}  // namespace keyescrow::agent
