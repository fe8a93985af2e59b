// gate: may the service that uses a key start?
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = GateOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name>("NAME", "an escrowed key"),
    OptionalArgument<&O::command>("CMD", "after --: the command that takes this process's place")
        .Verbatim(),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::override_reason>("--override", "REASON",
                                "start although it does not comply; logged, and a finding of "
                                "'status'"),
    Flag<&O::exec_sources>("--exec-sources", "run a declared exec: source, to compare its key"),
};
constexpr Example kExamples[] = {
    {"keyescrow gate db/main", "decide alone: exit 0 or 7"},
    {"keyescrow gate db/main -- /usr/bin/postgres -D /var/lib/postgres",
     "start the service if its key complies"},
    {"keyescrow gate db/main --override 'INC-4711: token in transit' -- /usr/bin/postgres",
     "start it all the same, on the record"},
};
constexpr std::uint8_t kExits[] = {0, 2, 4, 7, 8, 9};

}  // namespace

constexpr CommandSpec kGateCommand = {
    .name = "gate",
    .purpose = "start a service only while its key complies",
    .arguments = kArguments,
    .options = kOptions,
    .details =
        "A key complies while the bytes at its source are the newest escrowed version, 'status' "
        "has no critical finding for it, and its entry is proven into the log's newest signed "
        "checkpoint. No password is asked for and no TPM and no token is touched.\n"
        "CMD replaces this process: its exit status is then CMD's own. What fails here (a store "
        "that is damaged or held, a log that does not verify) starts nothing, and no override "
        "changes that.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
};

}  // namespace keyescrow::agent
