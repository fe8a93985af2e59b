#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using Add = TokenAddOptions;
using Keygen = TokenKeygenOptions;

constexpr std::string_view kUseLastTry =
    "go on although one try is left before the token locks its PIN";

constexpr OptionSpec kAddArguments[] = {
    Argument<&Add::name>("NAME", "what paths call the token: token:NAME"),
    Argument<&Add::uri>("URI", "its PKCS#11 URI (RFC 7512)"),
};
constexpr OptionSpec kAddOptions[] = {
    Option<&Add::module>("--module", "SO",
                         "the token's PKCS#11 module, where the URI has no module-path=")
        .File(),
    Flag<&Add::use_last_try>("--use-last-try", kUseLastTry),
};
constexpr Example kAddExamples[] = {
    {"keyescrow token add ops 'pkcs11:token=ops;object=escrow' --module "
     "/usr/lib/softhsm/libsofthsm2.so",
     "register the key 'escrow' on the token 'ops'"},
    {"keyescrow token add alice 'pkcs11:serial=12345678;id=%9d' --module /usr/lib/libykcs11.so "
     "--pin-file /run/pin",
     "find it by serial and key id; the PIN comes from a file"},
    {"keyescrow token add hsm "
     "'pkcs11:token=hsm?module-path=/usr/lib/hsm.so&pin-source=/run/hsm.pin'",
     "module and PIN file in the URI; later commands read the PIN there too"},
};
constexpr std::uint8_t kAddExits[] = {0, 2, 3, 4, 5, 6, 8, 9, 10};

constexpr OptionSpec kKeygenArguments[] = {
    Argument<&Keygen::name>("NAME", "what paths call the token: token:NAME"),
    Argument<&Keygen::uri>("URI", "the token, and with object= or id= what to call the key"),
};
constexpr OptionSpec kKeygenOptions[] = {
    Option<&Keygen::module>("--module", "SO",
                            "the token's PKCS#11 module, where the URI has no module-path=")
        .File(),
    Option<&Keygen::kind>("--kind", "rsa3072|p256",
                          "the kind of key; rsa3072, the default, works on the most tokens"),
    Flag<&Keygen::use_last_try>("--use-last-try", kUseLastTry),
};
constexpr Example kKeygenExamples[] = {
    {"keyescrow token keygen ops 'pkcs11:token=ops;object=escrow' --module "
     "/usr/lib/softhsm/libsofthsm2.so",
     "make an RSA key on the token and register it"},
    {"keyescrow token keygen ops 'pkcs11:token=ops;object=escrow' --kind p256 --module "
     "/usr/lib/opensc-pkcs11.so",
     "the same with a P-256 key"},
};
constexpr std::uint8_t kKeygenExits[] = {0, 1, 2, 3, 4, 5, 6, 8, 9, 10};

constexpr Example kListExamples[] = {
    {"keyescrow token list", "the registered tokens"},
    {"keyescrow token list --json", "the same for a program"},
};
constexpr std::uint8_t kListExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kShowArguments[] = {
    Argument<&TokenShowOptions::name>("NAME", "a registered token"),
};
constexpr Example kShowExamples[] = {
    {"keyescrow token show ops", "its public key, URI, module and evidence"},
    {"keyescrow token show ops --json", "the same for a program"},
};
constexpr std::uint8_t kShowExits[] = {0, 2, 4, 5, 8, 9};

constexpr OptionSpec kRemoveArguments[] = {
    Argument<&TokenRemoveOptions::name>("NAME", "a registered token"),
};
constexpr Example kRemoveExamples[] = {
    {"keyescrow token remove ops", "list the keys that it strands, then ask"},
    {"keyescrow token remove ops --yes", "without asking"},
};
constexpr std::uint8_t kRemoveExits[] = {0, 1, 2, 4, 8, 9};

}  // namespace

constexpr CommandSpec kTokenAddCommand = {
    .name = "token add",
    .purpose = "register the public key of a PKCS#11 token",
    .arguments = kAddArguments,
    .options = kAddOptions,
    .pin_options = kPinOptions<&Add::secrets>,
    .details =
        "Backups are then wrapped to the public key without the token. The PIN is used once, to "
        "read the key's attributes as evidence; what a module says of itself is 'token-asserted'.",
    .examples = kAddExamples,
    .exits = kAddExits,
    .make = &MakeOptions<Add>,
};

constexpr CommandSpec kTokenListCommand = {
    .name = "token list",
    .purpose = "list the registered tokens",
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<TokenListOptions>,
};

constexpr CommandSpec kTokenShowCommand = {
    .name = "token show",
    .purpose = "show what is registered of one token, and whether it is present",
    .arguments = kShowArguments,
    .examples = kShowExamples,
    .exits = kShowExits,
    .make = &MakeOptions<TokenShowOptions>,
};

constexpr CommandSpec kTokenKeygenCommand = {
    .name = "token keygen",
    .purpose = "make a key pair on a token and register it",
    .arguments = kKeygenArguments,
    .options = kKeygenOptions,
    .pin_options = kPinOptions<&Keygen::secrets>,
    .details =
        "The private key is made on the token, is never extractable, and may only decrypt or "
        "derive. A token that is lost takes it along: give each key a second path.",
    .examples = kKeygenExamples,
    .exits = kKeygenExits,
    .make = &MakeOptions<Keygen>,
};

constexpr CommandSpec kTokenRemoveCommand = {
    .name = "token remove",
    .purpose = "forget a token, after listing every key that this strands",
    .arguments = kRemoveArguments,
    .details = "The key on the token is left alone.",
    .examples = kRemoveExamples,
    .exits = kRemoveExits,
    .make = &MakeOptions<TokenRemoveOptions>,
};

}  // namespace keyescrow::agent
