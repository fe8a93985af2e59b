#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = DrillOptions;

constexpr OptionSpec kArguments[] = {
    OptionalArgument<&O::name_or_file>("NAME|FILE", "an escrowed key, or a portable .escrow file")
        .File(),
};
constexpr OptionSpec kOptions[] = {
    Flag<&O::all>("--all", "the newest version of every escrowed key, one after the other"),
    Option<&O::via>("--via", "ID", "this path alone; without it, every path"),
    Option<&O::challenge>("--challenge", "FILE",
                          "an auditor's challenge: what is signed carries it; alone, what it drew "
                          "is drilled")
        .File(),
    Option<&O::answers>("--answers", "FILE",
                        "where the tokens' answers to the challenge's nonces are written")
        .File(),
    Option<&O::module>("--module", "SO", "the PKCS#11 module, where no token is registered").File(),
    Option<&O::agent>("--agent", "THUMBPRINT", "trust this signer of a file"),
    Option<&O::pcr_policy_signature>("--pcr-policy-signature", "FILE",
                                     "of a path whose PCR policy is signed: ECDSA-SHA256 over the "
                                     "digest of the present PCRs")
        .File(),
    Option<&O::event_log>("--event-log", "FILE", "without a state: where the event is written")
        .File(),
};
constexpr Example kExamples[] = {
    {"keyescrow drill prod/db", "prove every path whose factors are at hand"},
    {"keyescrow drill --all --no-input --pin-file ops=/run/pin --password-file /run/password",
     "every key, from a timer: one login a token"},
    {"keyescrow drill --challenge q3.challenge --answers q3.answers",
     "what an auditor drew, and that the tokens are alive"},
    {"keyescrow drill db.escrow --module /usr/lib/softhsm/libsofthsm2.so --agent THUMBPRINT",
     "a file, on a machine without a state"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 8, 9, 10};

Status Check(const CommandOptions& command) {
  const auto& options = std::get<O>(command);
  if (options.event_log == "-") {
    return UsageError("--event-log takes a file: the event must be durable before the key is used",
                      "keyescrow drill --help");
  }
  constexpr std::string_view kHelp = "keyescrow drill --help";
  if (options.all && !options.name_or_file.empty()) {
    return UsageError("a key and --all exclude each other", kHelp);
  }
  if (!options.all && options.name_or_file.empty() && options.challenge.empty()) {
    return UsageError("what should be drilled? NAME, FILE or --all is missing", kHelp);
  }
  if (options.challenge.empty() && !options.answers.empty()) {
    return UsageError("--answers needs --challenge", kHelp);
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kDrillCommand = {
    .name = "drill",
    .purpose = "prove that a key's paths open, and disclose nothing",
    .arguments = kArguments,
    .options = kOptions,
    .password_options = kPasswordOptions<&O::secrets>,
    .pin_options = kPinOptions<&O::secrets>,
    .details =
        "Opens each path to the content's tag, forgets the key and signs, with a key that comes "
        "out of all the path's factors, that it opened; the log has the proof. A token is logged "
        "in to once for all keys, a password asked for once; one that was refused is not tried "
        "again, and no last try is spent. What is not at hand is skipped, with the reason. 0 means "
        "that every path is proven, 1 that some are not; where one key was asked for and none of "
        "its paths is proven, the status is the cause's.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &Check,
};

}  // namespace keyescrow::agent
