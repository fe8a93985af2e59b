// list, show, status: what is escrowed, and how well.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

constexpr Example kListExamples[] = {
    {"keyescrow list", "every escrowed key, with its version and paths"},
    {"keyescrow list --json", "the same for a program"},
};
constexpr std::uint8_t kListExits[] = {0, 2, 4, 5, 8, 9};

constexpr OptionSpec kShowArguments[] = {
    Argument<&ShowOptions::name_or_file>(
        "NAME|FILE", "an escrowed key, a portable .escrow file, a clevis JWE or a LUKS2 volume")
        .File(),
};
constexpr OptionSpec kShowOptions[] = {
    Option<&ShowOptions::module>("--module", "SO",
                                 "the PKCS#11 module, where no token is registered")
        .File(),
};
constexpr Example kShowExamples[] = {
    {"keyescrow show prod/db",
     "its header and paths; which of them can be opened here, or why not"},
    {"keyescrow show db.escrow", "the same of a file; needs no init"},
};
constexpr std::uint8_t kShowExits[] = {0, 2, 4, 8, 9};

constexpr OptionSpec kStatusArguments[] = {
    OptionalArgument<&StatusOptions::name>("NAME", "one key; without it, all"),
};
constexpr OptionSpec kStatusOptions[] = {
    Flag<&StatusOptions::exec_sources>("--exec-sources",
                                       "run declared exec: sources too, to compare the key in use"),
    Flag<&StatusOptions::nagios>(
        "--nagios",
        "one line with performance data; exits 0 OK, 1 warning, 2 critical, "
        "3 unknown"),
    Flag<&StatusOptions::prometheus>(
        "--prometheus", "metrics in Prometheus' text format; exits 0 where they were written"),
    Option<&StatusOptions::output>("--output", "FILE",
                                   "where the metrics go, replaced as a whole: *.prom in "
                                   "node_exporter's folder")
        .Letter('o')
        .File(),
};
constexpr Example kStatusExamples[] = {
    {"keyescrow status", "which keys comply, and the findings of those that do not"},
    {"keyescrow status prod/db", "one key: each path proven, covered, stale, unproven or broken"},
    {"keyescrow status --nagios", "for a monitor"},
    {"keyescrow status --prometheus -o /var/lib/prometheus/node-exporter/keyescrow.prom",
     "metrics for node_exporter's textfile collector"},
};
constexpr std::uint8_t kStatusExits[] = {0, 1, 2, 3, 4, 5, 8, 9, 11, 12};

Status CheckStatus(const CommandOptions& command) {
  const auto& options = std::get<StatusOptions>(command);
  if (options.nagios && options.prometheus) {
    return UsageError("--nagios and --prometheus exclude each other", "keyescrow status --help");
  }
  if (!options.output.empty() && !options.prometheus) {
    return UsageError("--output is for --prometheus", "keyescrow status --help");
  }
  if (!options.output.empty() && !options.output.ends_with(".prom")) {
    return UsageError(
        "the collector reads files of the name *.prom alone, and " + options.output + " is none",
        "keyescrow status --help");
  }
  if (!options.name.empty() && options.prometheus) {
    return UsageError("--prometheus tells of all keys: leave NAME out", "keyescrow status --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kListCommand = {
    .name = "list",
    .purpose = "list the escrowed keys",
    .examples = kListExamples,
    .exits = kListExits,
    .make = &MakeOptions<ListOptions>,
};

constexpr CommandSpec kShowCommand = {
    .name = "show",
    .purpose = "show one key's header and paths, and which of them can be opened here",
    .arguments = kShowArguments,
    .options = kShowOptions,
    .examples = kShowExamples,
    .exits = kShowExits,
    .make = &MakeOptions<ShowOptions>,
};

constexpr CommandSpec kStatusCommand = {
    .name = "status",
    .purpose = "tell whether every key complies, and what to do about those that do not",
    .arguments = kStatusArguments,
    .options = kStatusOptions,
    .details =
        "The key at each declared source is read once and compared with the escrowed one by a "
        "keyed fingerprint: no password is needed. Who else can read the source, and the machine's "
        "id, are compared with those of the last backup.",
    .examples = kStatusExamples,
    .exits = kStatusExits,
    .make = &MakeOptions<StatusOptions>,
    .check = &CheckStatus,
};

}  // namespace keyescrow::agent
