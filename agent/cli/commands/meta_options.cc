// completion and version: answered by the parser itself.
#include "agent/cli/commands/specs.h"
#include "agent/cli/completion.h"

namespace keyescrow::agent {
namespace {

Status StoreCompletion(const OptionSpec& spec, OptionTarget target, std::string_view value) {
  ASSIGN_OR_RETURN(const std::size_t index, WordIndex(spec, value));
  std::get<TextToPrint>(target.command).text = CompletionScript(static_cast<Shell>(index));
  return Ok();
}

constexpr OptionSpec kCompletionArguments[] = {
    {.name = "SHELL",
     .value = "bash|zsh|fish",
     .help = "the shell that reads it",
     .store = &StoreCompletion,
     .required = true,
     .has_words = true},
};
constexpr Example kCompletionExamples[] = {
    {"source <(keyescrow completion bash)", "in ~/.bashrc"},
    {"keyescrow completion zsh > ~/.zfunc/_keyescrow", "with ~/.zfunc in fpath"},
    {"keyescrow completion fish > ~/.config/fish/completions/keyescrow.fish", "for fish"},
};
constexpr std::uint8_t kCompletionExits[] = {0, 2};

constexpr OptionSpec kNamesArguments[] = {
    Argument<&CompletionNamesOptions::kind>("KIND", "keys, tokens, paths or losses"),
    OptionalArgument<&CompletionNamesOptions::name>("NAME", "the key whose paths are wanted"),
};
constexpr std::uint8_t kNamesExits[] = {0};

constexpr Example kVersionExamples[] = {
    {"keyescrow version", "one line"},
    {"keyescrow version --json", "with the envelope's format"},
};
constexpr std::uint8_t kVersionExits[] = {0, 2};

}  // namespace

constexpr CommandSpec kCompletionCommand = {
    .name = "completion",
    .purpose = "print the completions for a shell",
    .arguments = kCompletionArguments,
    .examples = kCompletionExamples,
    .exits = kCompletionExits,
    .make = &MakeOptions<TextToPrint>,
};

constexpr CommandSpec kCompletionNamesCommand = {
    .name = "completion-names",
    .purpose = "list names for the completions, from the store, read alone",
    .arguments = kNamesArguments,
    .exits = kNamesExits,
    .make = &MakeOptions<CompletionNamesOptions>,
};

constexpr CommandSpec kVersionCommand = {
    .name = "version",
    .purpose = "print the version",
    .examples = kVersionExamples,
    .exits = kVersionExits,
    .make = &MakeOptions<TextToPrint>,
};

}  // namespace keyescrow::agent
