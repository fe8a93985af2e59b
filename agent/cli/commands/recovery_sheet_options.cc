#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = RecoverySheetOptions;

constexpr OptionSpec kArguments[] = {
    Argument<&O::name>("NAME", "an escrowed key"),
};
constexpr OptionSpec kOptions[] = {
    Option<&O::output>("--output", "FILE", "where the page goes; '-': standard output")
        .Letter('o')
        .Required()
        .File(),
    Flag<&O::text>("--text", "plain text instead of HTML; also where FILE ends in .txt"),
};
constexpr Example kExamples[] = {
    {"keyescrow recovery-sheet prod/db -o db.html",
     "open it in a browser, print it on A4 or Letter"},
    {"keyescrow recovery-sheet prod/db --text -o - | lpr", "to a printer of text"},
    {"keyescrow show ./sheet.txt", "what was scanned from the paper: show, restore, drill, verify"},
};
constexpr std::uint8_t kExits[] = {0, 2, 4, 7, 8, 9, 11, 12};

}  // namespace

constexpr CommandSpec kRecoverySheetCommand = {
    .name = "recovery-sheet",
    .purpose = "make a page for the safe: the envelope as QR codes",
    .arguments = kArguments,
    .options = kOptions,
    .details =
        "The page says what it is, how the key is restored from it in five steps, what each path "
        "needs, and whose signature counts; no secret is on it. It is a copy of the envelope: the "
        "policy is asked as for 'export', and the log has it. What a scanner reads from it, a line "
        "a code and in any order, is a file for restore, show, drill, verify and import.\n"
        "The text form has the same lines to type or to read by machine, and may be given whole.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
};

}  // namespace keyescrow::agent
