// policy: signed rules.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr Example kShowExamples[] = {
    {"keyescrow policy show", "what holds here, since when, and who may change it"},
    {"keyescrow policy show --json", "the same for a program, with the policy's text"},
};
constexpr std::uint8_t kShowExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kCheckArguments[] = {
    Argument<&PolicyCheckOptions::file>("FILE", "a policy; its signatures are in FILE.sig").File(),
};
constexpr OptionSpec kCheckOptions[] = {
    Option<&PolicyCheckOptions::policy_keys>(
        "--policy-key", "VKEY", "the first signers, where none are pinned here; repeatable"),
};
constexpr Example kCheckExamples[] = {
    {"keyescrow policy check policy.toml", "is it right, and which keys would comply under it"},
    {"keyescrow policy check policy.toml --json", "the same for a pipeline"},
};
constexpr std::uint8_t kCheckExits[] = {0, 1, 2, 4, 7, 9};

constexpr OptionSpec kSignArguments[] = {
    OptionalArgument<&PolicySignOptions::file>(
        "FILE", "a policy; without it, only the signer's verifier key is printed")
        .File(),
};
constexpr OptionSpec kSignOptions[] = {
    Option<&PolicySignOptions::key>(
        "--key", "FILE|agent|token:NAME|URI",
        "who signs: a PEM file (Ed25519 or P-256), this host's agent key, a P-256 key on a "
        "registered token, or on the token that a PKCS#11 URI names")
        .File(),
    Option<&PolicySignOptions::token>(
        "--token", "NAME|URI",
        "who signs: a P-256 key on a token, registered, or by its PKCS#11 URI"),
    Option<&PolicySignOptions::module>(
        "--module", "SO", "the token's PKCS#11 module, where the URI has no module-path=")
        .File(),
    Option<&PolicySignOptions::new_key>("--new-key", "FILE",
                                        "make an Ed25519 key in a new file, and sign with it")
        .File(),
    Option<&PolicySignOptions::name>(
        "--name", "NAME", "the signer's name; without it, the file's without its ending"),
    Flag<&PolicySignOptions::use_last_try>(
        "--use-last-try", "go on although one try is left before the token locks its PIN"),
};
constexpr Example kSignExamples[] = {
    {"keyescrow policy sign --new-key alice.key", "a key for alice; prints her verifier key"},
    {"keyescrow policy sign policy.toml --key alice.key", "adds her line to policy.toml.sig"},
    {"keyescrow policy sign policy.toml --key agent", "by this host's agent key"},
    {"keyescrow policy sign --token 'pkcs11:token=carol;object=policy' --module "
     "/usr/lib/opensc-pkcs11.so --name carol",
     "carol's verifier key, read from her token without a PIN"},
    {"keyescrow policy sign policy.toml --token 'pkcs11:token=carol;object=policy' --module "
     "/usr/lib/opensc-pkcs11.so --name carol",
     "her signature, made in the token"},
};
constexpr std::uint8_t kSignExits[] = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

constexpr OptionSpec kSetArguments[] = {
    Argument<&PolicySetOptions::file>("FILE", "a policy; its signatures are in FILE.sig").File(),
};
constexpr OptionSpec kSetOptions[] = {
    Option<&PolicySetOptions::policy_keys>(
        "--policy-key", "VKEY", "pin the first signers, where none are pinned; repeatable"),
};
constexpr Example kSetExamples[] = {
    {"keyescrow policy set policy.toml --policy-key 'alice+1a2b3c4d+AQ…'",
     "the first one: alice's signature counts from now on"},
    {"keyescrow policy set policy.toml", "the next one, signed as the policy in force asks"},
};
constexpr std::uint8_t kSetExits[] = {0, 2, 4, 7, 8, 9};

Status CheckSign(const CommandOptions& command) {
  const auto& options = std::get<PolicySignOptions>(command);
  constexpr std::string_view kHelp = "keyescrow policy sign --help";
  const int num_signers = (options.key.empty() ? 0 : 1) + (options.new_key.empty() ? 0 : 1) +
                          (options.token.empty() ? 0 : 1);
  if (num_signers != 1) {
    return UsageError("one of --key, --token and --new-key says who signs", kHelp);
  }
  const bool is_uri = options.key.starts_with("pkcs11:") || options.token.starts_with("pkcs11:");
  if (!options.module.empty() && !is_uri) {
    return UsageError("--module goes with a token's URI: a registered token has its own", kHelp);
  }
  if (is_uri && options.name.empty()) {
    return UsageError("a token's URI needs --name: what the signer is called", kHelp);
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kPolicyShowCommand = {
    .name = "policy show",
    .purpose = "show the policy in force",
    .examples = kShowExamples,
    .exits = kShowExits,
    .make = &MakeOptions<PolicyShowOptions>,
};

constexpr CommandSpec kPolicyCheckCommand = {
    .name = "policy check",
    .purpose = "check a policy and say which keys would comply under it",
    .arguments = kCheckArguments,
    .options = kCheckOptions,
    .details =
        "Nothing is changed. Modes and graces are set aside: what counts is whether a key "
        "would comply once everything is enforced. Exit status 1 where a key would no longer "
        "comply; 4 where a signature is forged, is of another content or too few of those who "
        "count have signed. One that nobody has signed yet is checked as a draft. Needs no init to "
        "check a file alone.",
    .examples = kCheckExamples,
    .exits = kCheckExits,
    .make = &MakeOptions<PolicyCheckOptions>,
};

constexpr CommandSpec kPolicySignCommand = {
    .name = "policy sign",
    .purpose = "sign a policy, or make a key to sign with",
    .arguments = kSignArguments,
    .options = kSignOptions,
    .pin_options = kPinOptions<&PolicySignOptions::secrets>,
    .details =
        "Needs no init, but for --key agent and a registered token. A policy that does not parse "
        "is not signed. Signatures of an older content of the file are dropped. A token signs with "
        "CKM_ECDSA after one login; the PIN is asked for, or read where the URI's or the "
        "registration's pin-source says, and one that the token refuses is never sent again.",
    .examples = kSignExamples,
    .exits = kSignExits,
    .make = &MakeOptions<PolicySignOptions>,
    .check = &CheckSign,
};

constexpr CommandSpec kPolicySetCommand = {
    .name = "policy set",
    .purpose = "put a signed policy in force",
    .arguments = kSetArguments,
    .options = kSetOptions,
    .details =
        "The policy in force says who must sign the next one, and its serial must be "
        "greater. Where none was set, --policy-key names the signers: all of them must sign, "
        "unless [signers] lists the same keys with a threshold.",
    .examples = kSetExamples,
    .exits = kSetExits,
    .make = &MakeOptions<PolicySetOptions>,
};

}  // namespace keyescrow::agent
