#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = RestoreOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name_or_file>("NAME|FILE", "an escrowed key, or a portable .escrow file").File(),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::to>("--to", "SINK", "where the key goes").File(),
    Option<&O::via>("--via", "ID", "the path to use; without it, one whose factors are present"),
    Option<&O::version>("--version", "N", "an older version than the current one"),
    Option<&O::reason>("--reason", "TEXT", "why; goes to the audit log"),
    Option<&O::ticket>("--ticket", "TEXT", "which ticket; goes to the audit log"),
    Option<&O::expect>("--expect", "NAME[@VERSION]", "refuse any other key than this one"),
    Flag<&O::replace>("--replace",
                      "write over another key; the old one is kept as PATH.keyescrow-previous"),
    Flag<&O::discard_previous>("--discard-previous",
                               "restore nothing: remove PATH.keyescrow-previous of --to"),
    Option<&O::confirm>("--confirm", "NAME",
                        "the name once more, where what is discarded may be escrowed nowhere"),
    Option<&O::module>("--module", "SO", "the PKCS#11 module, where no token is registered").File(),
    Option<&O::agent>("--agent", "THUMBPRINT", "trust this signer of a file"),
    Flag<&O::accept_unknown_agent>("--accept-unknown-agent",
                                   "restore a file whose signer nobody vouches for"),
    Flag<&O::use_last_try>("--use-last-try",
                           "go on although one try is left before a PIN or the TPM locks"),
    Option<&O::luks_unlock_file>("--luks-unlock-file", "FILE",
                                 "of a luks: sink: the passphrase of one of its keyslots, or its "
                                 "volume key")
        .File(),
    Option<&O::pcr_policy_signature>("--pcr-policy-signature", "FILE",
                                     "of a path whose PCR policy is signed: ECDSA-SHA256 over the "
                                     "digest of the present PCRs")
        .File(),
    Option<&O::event_log>("--event-log", "FILE", "without a state: where the event is written")
        .File(),
};
constexpr Example kExamples[] = {
    {"keyescrow restore prod/db --to /etc/db/master.key", "put the key back"},
    {"keyescrow restore prod/db --via 2of3 --to /etc/db/master.key --reason INC-4711",
     "by a path of your choice, here of officers who come with their tokens, and why"},
    {"keyescrow restore db.escrow --module /usr/lib/softhsm/libsofthsm2.so --agent THUMBPRINT --to "
     "key.bin",
     "on a new machine, from a file and a token alone"},
    {"keyescrow restore prod/db --to - --password-file /run/escrow/password --no-input | app",
     "from a script, into a pipe"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

Status Check(const CommandOptions& command) {
  const auto& options = std::get<O>(command);
  if (options.event_log == "-") {
    return UsageError("--event-log takes a file: the event must be durable before the key is used",
                      "keyescrow restore --help");
  }
  if (!options.confirm.empty() && !options.discard_previous) {
    return UsageError("--confirm is for --discard-previous", "keyescrow restore --help");
  }
  if (!options.agent.empty() && options.accept_unknown_agent) {
    return UsageError("--agent and --accept-unknown-agent exclude each other",
                      "keyescrow restore --help");
  }
  if (options.version == 0U) {
    return UsageError("--version counts from 1", "keyescrow restore --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kRestoreCommand = {
    .name = "restore",
    .purpose = "recover a key by one of its paths",
    .arguments = kArguments,
    .options = kOptions,
    .password_options = kPasswordOptions<&O::secrets>,
    .pin_options = kPinOptions<&O::secrets>,
    .details =
        "The event is written before the key is released. A destination that holds the same key is "
        "done; one with another key is left alone (12) unless --replace is given. With FILE, no "
        "init "
        "and no configuration are needed: the event goes to ./keyescrow-restore-ID.json.\n"
        "SINK: file:PATH or a path, - (standard output), exec:CMD, luks:DEVICE-OR-IMAGE (a keyslot "
        "that the key opens is added, unless there is one).",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &Check,
};

}  // namespace keyescrow::agent
