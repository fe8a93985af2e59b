// path and password: edits of a key's paths, with any one of them open.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

template <auto Edit>
constexpr OptionSpec kVia = Option<Edit, &EditOptions::via>(
    "--via", "ID", "the path that opens; without it, one whose factors are present");
template <auto Edit>
constexpr OptionSpec kVersion =
    Option<Edit, &EditOptions::version>("--version", "N", "an older version than the current one");
template <auto Edit>
constexpr OptionSpec kModule =
    Option<Edit, &EditOptions::module>("--module", "SO",
                                       "the PKCS#11 module, where no token is registered")
        .File();
template <auto Edit>
constexpr OptionSpec kUseLastTry = Option<Edit, &EditOptions::use_last_try>(
    "--use-last-try", "", "go on although one try is left before a PIN or the TPM locks");

constexpr std::uint8_t kListExits[] = {0, 2, 4, 8, 9};
constexpr std::uint8_t kEditExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

// ---- path list

constexpr OptionSpec kListArguments[] = {
    Argument<&PathListOptions::name>("NAME", "an escrowed key"),
};
constexpr Example kListExamples[] = {
    {"keyescrow path list prod/db", "its paths, what each asks for, and whether it is proven"},
    {"keyescrow path list prod/db --json", "the same for a program"},
};

// ---- path add

using A = PathAddOptions;
constexpr OptionSpec kAddArguments[] = {
    Argument<&A::name>("NAME", "an escrowed key"),
};
constexpr OptionSpec kAddOptions[] = {
    Option<&A::paths>("--path", "[ID=]EXPR",
                      "a recovery path, e.g. 'password & token:ops'; repeatable")
        .Required(),
    kVia<&A::edit>,
    Option<&A::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how passwords are stretched"),
    kVersion<&A::edit>,
    kModule<&A::edit>,
    kUseLastTry<&A::edit>,
};
constexpr Example kAddExamples[] = {
    {"keyescrow path add prod/db --path 'password & token:safe'",
     "a second token, for the safe; its PIN is not needed"},
    {"keyescrow path add prod/db --path disk='password & tpm' --via token-ops",
     "a path of this host's TPM, with a path of your choice open"},
};

// ---- path replace

using R = PathReplaceOptions;
constexpr OptionSpec kReplaceArguments[] = {
    Argument<&R::name>("NAME", "an escrowed key"),
    Argument<&R::id>("ID", "the path that goes"),
};
constexpr OptionSpec kReplaceOptions[] = {
    Option<&R::paths>("--path", "[ID=]EXPR", "the path that takes its place; repeatable")
        .Required(),
    kVia<&R::edit>,
    Option<&R::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how passwords are stretched"),
    kVersion<&R::edit>,
    kModule<&R::edit>,
    kUseLastTry<&R::edit>,
};
constexpr Example kReplaceExamples[] = {
    {"keyescrow path replace prod/db token-ops --path 'password & token:ops2' --via tpm",
     "a token was lost: another one in its place, with the TPM's path open"},
    {"keyescrow path replace prod/db tpm --path 'password & tpm'",
     "another TPM is in use: seal for it ('doctor' says what to do where the agent's own key was "
     "in "
     "the old one)"},
};

// ---- path remove

using M = PathRemoveOptions;
constexpr OptionSpec kRemoveArguments[] = {
    Argument<&M::name>("NAME", "an escrowed key"),
    Argument<&M::ids>("ID", "the paths that go"),
};
constexpr OptionSpec kRemoveOptions[] = {
    kVia<&M::edit>,
    kVersion<&M::edit>,
    kModule<&M::edit>,
    kUseLastTry<&M::edit>,
};
constexpr Example kRemoveExamples[] = {
    {"keyescrow path remove prod/db token-ops", "with any path open, that one too"},
    {"keyescrow path remove prod/db token-ops --via token-safe --no-input --password-file pw",
     "from a script"},
};

// ---- password change

using P = PasswordChangeOptions;
constexpr OptionSpec kChangeArguments[] = {
    Argument<&P::name>("NAME", "an escrowed key"),
};
constexpr OptionSpec kChangeOptions[] = {
    Option<&P::path_ids>("--path-id", "ID",
                         "change this path's password alone; repeatable. Without it, every path's, "
                         "where they have one"),
    kVia<&P::edit>,
    Option<&P::kdf>("--kdf", "argon2id|pbkdf2-sha512", "how the new password is stretched"),
    kVersion<&P::edit>,
    kModule<&P::edit>,
    kUseLastTry<&P::edit>,
};
constexpr Example kChangeExamples[] = {
    {"keyescrow password change prod/db", "asks for the old one, and twice for the new one"},
    {"keyescrow password change prod/db --via tpm --path-id token-ops",
     "of a path whose token is not here"},
    {"keyescrow password change prod/db --password-file old --new-password-file new --no-input",
     "from a script"},
};

Status CheckVersion(const EditOptions& edit, std::string_view help) {
  if (edit.version == 0U) return UsageError("--version counts from 1", help);
  return Ok();
}
Status CheckAdd(const CommandOptions& any) {
  return CheckVersion(std::get<A>(any).edit, "keyescrow path add --help");
}
Status CheckReplace(const CommandOptions& any) {
  return CheckVersion(std::get<R>(any).edit, "keyescrow path replace --help");
}
Status CheckRemove(const CommandOptions& any) {
  return CheckVersion(std::get<M>(any).edit, "keyescrow path remove --help");
}
Status CheckChange(const CommandOptions& any) {
  return CheckVersion(std::get<P>(any).edit, "keyescrow password change --help");
}

}  // namespace

constexpr CommandSpec kPathListCommand = {
    .name = "path list",
    .purpose = "list the recovery paths of a key",
    .arguments = kListArguments,
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<PathListOptions>,
};

constexpr CommandSpec kPathAddCommand = {
    .name = "path add",
    .purpose = "add recovery paths to a key, with any one of its paths open",
    .arguments = kAddArguments,
    .options = kAddOptions,
    .password_options = kNewPasswordOptions<&A::secrets>,
    .pin_options = kPinOptions<&A::secrets>,
    .details =
        "The other paths are kept as they are; their factors need not be at hand, and a new token "
        "needs no PIN. What was made is reopened by every path whose factors are at hand before it "
        "is committed. A password that opens a path by itself is refused beside hardware. The exit "
        "status is 0 if a path that needs no TPM is proven.",
    .examples = kAddExamples,
    .exits = kEditExits,
    .make = &MakeOptions<A>,
    .check = &CheckAdd,
};

constexpr CommandSpec kPathReplaceCommand = {
    .name = "path replace",
    .purpose = "put another path in the place of one whose token or TPM is gone",
    .arguments = kReplaceArguments,
    .options = kReplaceOptions,
    .password_options = kNewPasswordOptions<&R::secrets>,
    .pin_options = kPinOptions<&R::secrets>,
    .details =
        "One edit removes the path and makes the new one, so that the policy is never broken "
        "between. Copies of the envelope from before still open by the path that went: rotate the "
        "key where its token was stolen.",
    .examples = kReplaceExamples,
    .exits = kEditExits,
    .make = &MakeOptions<R>,
    .check = &CheckReplace,
};

constexpr CommandSpec kPathRemoveCommand = {
    .name = "path remove",
    .purpose = "remove recovery paths of a key, with any one of its paths open",
    .arguments = kRemoveArguments,
    .options = kRemoveOptions,
    .password_options = kPasswordOptions<&M::secrets>,
    .pin_options = kPinOptions<&M::secrets>,
    .details =
        "Refused are the last path, the last one that needs no TPM, and what the policy requires. "
        "Copies of the envelope from before still open by the path that went: rotate the key "
        "where that matters.",
    .examples = kRemoveExamples,
    .exits = kEditExits,
    .make = &MakeOptions<M>,
    .check = &CheckRemove,
};

constexpr CommandSpec kPasswordChangeCommand = {
    .name = "password change",
    .purpose = "change the password of a key's paths, with any one of its paths open",
    .arguments = kChangeArguments,
    .options = kChangeOptions,
    .password_options = kNewPasswordOptions<&P::secrets>,
    .pin_options = kPinOptions<&P::secrets>,
    .details =
        "The tokens of these paths need not be at hand; a path to this host's TPM needs that TPM. "
        "Copies of the envelope from before still open by the old password: rotate the key where "
        "it may be known. Older versions of the key keep theirs (--version N).",
    .examples = kChangeExamples,
    .exits = kEditExits,
    .make = &MakeOptions<P>,
    .check = &CheckChange,
};

}  // namespace keyescrow::agent
