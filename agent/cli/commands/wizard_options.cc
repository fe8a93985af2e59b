// wizard: the guided dialogue.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr Example kExamples[] = {
    {"keyescrow wizard", "back up or restore a key, one question at a time"},
    {"keyescrow wizard --state ./state", "with a state of its own, to try it out"},
    {"keyescrow wizard --tpm none", "on a machine whose TPM does not answer"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

}  // namespace

constexpr CommandSpec kWizardCommand = {
    .name = "wizard",
    .purpose = "back up or restore a key, led by questions",
    .details =
        "For who does it once a year. Plain lines, so that it works on a serial console: a number "
        "chooses, Enter takes what stands in brackets, < goes back without losing what was typed, "
        "? explains, Ctrl-C leaves. No key is escrowed or restored before the page "
        "\"Review\", which shows the equal command line. Whoever leaves gets exit status 2.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<WizardOptions>,
};

}  // namespace keyescrow::agent
