#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = DoctorOptions;

constexpr OptionSpec kOptions[] = {
    Option<&O::module>("--module", "SO", "also try this PKCS#11 module").File(),
};
constexpr Example kExamples[] = {
    {"keyescrow doctor", "check this host; works before init, too"},
    {"keyescrow doctor --module /usr/lib/softhsm/libsofthsm2.so",
     "check what a module shows, with its tokens and their PIN counters"},
    {"keyescrow doctor --json --tpm none", "for a monitor, on a host without a TPM"},
};
constexpr std::uint8_t kExits[] = {0, 1, 2};

}  // namespace

constexpr CommandSpec kDoctorCommand = {
    .name = "doctor",
    .purpose = "check what people trip over, each with its remedy",
    .options = kOptions,
    .details =
        "Looks at the TPM's access and lockout, the modules, tokens and PIN counters, the limit on "
        "locked memory, the clock, permissions, the store, and what a restore that was killed left "
        "beside a key's place. No secret is asked for and no try of "
        "a PIN is used. Needs no init and no configuration.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<DoctorOptions>,
};

}  // namespace keyescrow::agent
