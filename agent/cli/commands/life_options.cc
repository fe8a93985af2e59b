// rotate and destroy.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr std::uint32_t kMaxGeneratedBytes = 65536;
constexpr std::uint32_t kMaxApplySeconds = 86400;

namespace rotate {

using O = RotateOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name>("NAME", "the key's name"),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::from>("--from", "SOURCE", "read the new key from here").File(),
    Option<&O::generate_bytes>("--generate", "BYTES",
                               "make the new key; without --from, as long as the one in use"),
    Option<&O::to>("--to", "SINK",
                   "hand the new key over to here; without --apply, to where the key is declared")
        .File(),
    Option<&O::apply>("--apply", "CMD",
                      "hand it over to this command, which gets both keys on descriptors"),
    Option<&O::apply_timeout_s>("--apply-timeout", "SECONDS",
                                "end the command's process group after it; default 300"),
    Option<&O::luks_unlock_file>("--luks-unlock-file", "FILE",
                                 "of a luks: sink: the passphrase of one of its keyslots, or its "
                                 "volume key")
        .File(),
    Option<&O::via>("--via", "ID", "the path that opens a version, where one must be opened"),
    Option<&O::paths>("--path", "[ID=]EXPR",
                      "a recovery path of the new version; without, those of the one in use"),
    Option<&O::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how passwords are stretched"),
    Option<&O::prove>("--prove", "ID",
                      "prove this path alone, with its officers or recovery key; repeatable"),
    Option<&O::note>("--note", "TEXT", "kept in clear in the envelope"),
    Option<&O::reason>("--reason", "TEXT", "why; goes to the audit log"),
    Option<&O::ticket>("--ticket", "TEXT", "which ticket; goes to the audit log"),
    Flag<&O::abandon>("--abandon", "roll back the rotation that is under way, and begin none"),
};
constexpr Example kExamples[] = {
    {"keyescrow rotate prod/db", "a new key where it is declared; the old one is kept beside it"},
    {"keyescrow rotate prod/db --generate 64 --apply 'db-rekey --old /dev/fd/3 --new /dev/fd/4'",
     "a command puts the new key to use"},
    {"keyescrow rotate host/root --luks-unlock-file /etc/luks.key",
     "the secret of a keyslot, declared as luks:/dev/sda3: a new keyslot, and the old one removed"},
    {"keyescrow rotate prod/db --from new.key --to exec:'db-load-key'",
     "a key that somebody else made, to a program"},
    {"keyescrow rotate prod/db --abandon", "roll back a rotation that was interrupted"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

Status Check(const CommandOptions& command) {
  const auto& options = std::get<O>(command);
  const std::string_view help = "keyescrow rotate --help";
  if (!options.from.empty() && options.generate_bytes) {
    return UsageError("--from and --generate exclude each other", help);
  }
  if (options.generate_bytes &&
      (*options.generate_bytes == 0 || *options.generate_bytes > kMaxGeneratedBytes)) {
    return UsageError("--generate takes 1 to 65536 bytes", help);
  }
  if (options.apply_timeout_s) {
    if (options.apply.empty()) return UsageError("--apply-timeout is for --apply", help);
    if (*options.apply_timeout_s == 0 || *options.apply_timeout_s > kMaxApplySeconds) {
      return UsageError("--apply-timeout takes 1 to 86400 seconds", help);
    }
  }
  const bool begins = !options.from.empty() || options.generate_bytes || !options.apply.empty() ||
                      !options.to.empty() || !options.paths.empty();
  if (options.abandon && begins) {
    return UsageError("--abandon begins no rotation: it goes with the name alone", help);
  }
  return Ok();
}

}  // namespace rotate

namespace destroy {

using O = DestroyOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name>("NAME", "the key's name"),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::confirm>("--confirm", "NAME", "the name once more, where nobody can type it"),
    Option<&O::reason>("--reason", "TEXT", "why; goes to the audit log"),
    Option<&O::ticket>("--ticket", "TEXT", "which ticket; goes to the audit log"),
};
constexpr Example kExamples[] = {
    {"keyescrow destroy prod/db --reason 'decommissioned, CHG-12'",
     "asks for the name; then no version of it can be restored from here"},
    {"keyescrow destroy prod/db --confirm prod/db --no-input", "from a script"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 4, 7, 8, 9};

}  // namespace destroy

}  // namespace

constexpr CommandSpec kRotateCommand = {
    .name = "rotate",
    .purpose = "put a new key in the place of the one in use, escrowed and proven first",
    .arguments = rotate::kArguments,
    .options = rotate::kOptions,
    .password_options = kNewPasswordOptions<&rotate::O::secrets>,
    .pin_options = kPinOptions<&rotate::O::secrets>,
    .details =
        "The new version is escrowed and proven, then handed over, then seen to be in use; only "
        "then is the old one superseded, and 'restore --version' still gives it. Nobody is asked "
        "for a path to a recovery key that was drilled lately, nor for officers who opened the "
        "version in use lately: new versions go to public keys.\n"
        "A sink that is a file keeps the old key as PATH.keyescrow-previous. A LUKS2 volume gets a "
        "new keyslot; the old one is removed once the new version is in use.\n"
        "CMD runs by /bin/sh -c. KEYESCROW_OLD_KEY_FD and KEYESCROW_NEW_KEY_FD name two "
        "descriptors (3 and 4), each to be read once to its end; a key of up to 64 KiB is there as "
        "a whole before CMD begins, whatever ends keyescrow then; KEYESCROW_KEY, "
        "KEYESCROW_OLD_VERSION and KEYESCROW_NEW_VERSION say which keys they are. Exit status 0: "
        "the new key is in use, durably; 1 to 127: the old one still is, and the new version is "
        "abandoned; above, or ended by a signal or the time limit: the key at its declared source "
        "decides, else the rotation stays open. CMD has no terminal: where it waits for one, or "
        "where keyescrow gets SIGINT, SIGTERM or SIGHUP (exit 128 and its number), its process "
        "group "
        "is ended by SIGTERM and, 2 s later, SIGKILL. One that is run again succeeds where the new "
        "key "
        "is in use already. The old key is read at its declared source; where it cannot be, the "
        "version is opened by a path. The text of CMD stands in the store until the rotation ends: "
        "put no secret in it. Of --reason, what is over the log's 512 bytes an entry is cut.\n"
        "Passwords are stretched as in the version in use, at its cost where that is higher, "
        "unless "
        "--kdf is given; its note stays, unless --note is.\n"
        "A rotation that was interrupted is confirmed, rolled back or handed over again by the "
        "next 'rotate NAME', which says what it did; where it cannot know which key is in use it "
        "says so and changes nothing. A keyslot that may be left after --abandon is a finding of "
        "'status' until it is gone.",
    .examples = rotate::kExamples,
    .exits = rotate::kExits,
    .make = &MakeOptions<rotate::O>,
    .check = &rotate::Check,
};

constexpr CommandSpec kDestroyCommand = {
    .name = "destroy",
    .purpose = "shred every version of a key here; it cannot be undone",
    .arguments = destroy::kArguments,
    .options = destroy::kOptions,
    .details =
        "Every envelope of the key is removed from the store for good; its entries and hashes "
        "stay, so that the log still verifies. A key that is declared, or that a rule in force "
        "requires to be escrowed, is refused. The name is typed to confirm it, or given once more "
        "with "
        "--confirm: --yes alone is not enough. It says what cannot be shredded: files that were "
        "exported, copies of the store, freed blocks of the disk, the key itself where the "
        "application "
        "has it.",
    .examples = destroy::kExamples,
    .exits = destroy::kExits,
    .make = &MakeOptions<destroy::O>,
};

}  // namespace keyescrow::agent
