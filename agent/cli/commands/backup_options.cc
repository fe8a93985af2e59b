#include <algorithm>

#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = BackupOptions;

constexpr std::uint32_t kMaxGeneratedBytes = 65536;

constexpr OptionSpec kArguments[] = {
    OptionalArgument<&O::name>("NAME", "the key's name; --all in its place for every declared key"),
};
constexpr OptionSpec kOptions[] = {
    Flag<&O::all>("--all", "back up every declared key"),
    Option<&O::from>("--from", "SOURCE", "read the key from here; without it, from its declaration")
        .File(),
    Option<&O::generate_bytes>("--generate", "BYTES", "make a new random key; with --to"),
    Option<&O::to>("--to", "SINK", "where the generated key goes").File(),
    Option<&O::paths>("--path", "[ID=]EXPR",
                      "a recovery path, e.g. 'password & token:ops'; repeatable"),
    Option<&O::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how passwords are stretched"),
    Option<&O::prove>("--prove", "ID|none", "prove this path alone, or none; repeatable"),
    Option<&O::note>("--note", "TEXT", "kept in clear in the envelope"),
    Option<&O::output>("--output", "SINK", "also write a portable .escrow file").Letter('o').File(),
    Option<&O::luks_unlock_file>("--luks-unlock-file", "FILE",
                                 "of a luks: source or sink: the passphrase of one of its "
                                 "keyslots, or its volume key")
        .File(),
};
constexpr Example kExamples[] = {
    {"keyescrow backup prod/db --from /etc/db/master.key --path 'password & token:ops'",
     "escrow a key that is in a file"},
    {"keyescrow backup prod/db --path 'password & tpm' --path '2 of (token:alice, token:bob, "
     "token:carol)' -o /mnt/usb/db.escrow",
     "two paths, one for any two of three officers, and a file for the safe"},
    {"keyescrow backup host/root --generate 64 --to luks:/dev/sda3 --luks-unlock-file "
     "/etc/luks.key --path 'password & token:ops'",
     "a new keyslot of a LUKS2 volume, escrowed before it is added"},
    {"keyescrow backup --all --path recovery-key:security-team --no-input",
     "every declared key to a recovery key, with nobody present"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

Status Check(const CommandOptions& command) {
  const auto& options = std::get<O>(command);
  if (options.all == !options.name.empty()) {
    return UsageError(
        options.all ? "NAME and --all exclude each other" : "which key? NAME or --all is missing",
        "keyescrow backup --help");
  }
  if (!options.from.empty() && options.generate_bytes) {
    return UsageError("--from and --generate exclude each other", "keyescrow backup --help");
  }
  if (options.generate_bytes.has_value() == options.to.empty()) {
    return UsageError(options.to.empty() ? "--generate needs --to: where the new key goes"
                                         : "--to is for a key that --generate makes",
                      "keyescrow backup --help");
  }
  if (options.generate_bytes &&
      (*options.generate_bytes == 0 || *options.generate_bytes > kMaxGeneratedBytes)) {
    return UsageError("--generate takes 1 to 65536 bytes", "keyescrow backup --help");
  }
  if (options.all && (!options.from.empty() || options.generate_bytes || !options.output.empty())) {
    return UsageError("--all takes no --from, --generate or --output: each key has its own",
                      "keyescrow backup --help");
  }
  if (options.prove.size() > 1 && std::ranges::find(options.prove, "none") != options.prove.end()) {
    return UsageError("--prove none excludes other --prove", "keyescrow backup --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kBackupCommand = {
    .name = "backup",
    .purpose = "escrow a key under its recovery paths, and prove them",
    .arguments = kArguments,
    .options = kOptions,
    .password_options = kNewPasswordOptions<&O::secrets>,
    .pin_options = kPinOptions<&O::secrets>,
    .details =
        "A path needs all of its factors: password, token:NAME, tpm, joined by '&'. Every path "
        "whose "
        "factors are at hand is reopened from the written bytes and compared. The exit status is 0 "
        "if at least one path that needs no TPM was proven.\n"
        "Without --path the paths are those of the key's declaration; else those that the policy "
        "requires; else the default paths of agent.toml; else those of the key's newest version, "
        "as at a rotation.\n"
        "A path recovery-key:NAME needs nobody, and its factors are not asked for: it counts where "
        "a drill opened that recovery key within the time that the policy asks for, else 90 days. "
        "With --all such keys share commits, and results are written as they come.\n"
        "SOURCE and SINK: file:PATH or a path, - (standard input or output), exec:CMD, "
        "luks:DEVICE-OR-IMAGE. Of a LUKS2 volume a source reads the volume key; a sink adds a "
        "keyslot that the key opens, and leaves the others alone. The secret of a keyslot cannot "
        "be "
        "read back: --all tells it as escrowed already where its keyslot stands.\n"
        "The new version is in use at once. Where it has other bytes than the one before it, or "
        "that one came from another host and was never restored to where it is declared, a warning "
        "says so: 'restore --version' gives the other.\n"
        "A lost password cannot be recovered by anybody.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &Check,
};

}  // namespace keyescrow::agent
