// fish's completions; words stand in single quotes.
#include "agent/cli/completion_words.h"

namespace keyescrow::agent::completion {
namespace {

std::string FishQuoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out + "'";
}

std::string FishOption(const OptionSpec& option, const std::string& condition) {
  std::string out =
      "complete -c keyescrow" + condition + " -l " + std::string(option.name.substr(2));
  if (option.letter != 0) out.append(" -s ").append(1, option.letter);
  if (!option.IsFlag()) {
    if (option.has_words) {
      out.append(" -x -a ").append(FishQuoted(Words(option)));
    } else if (!NamesOf(option).empty()) {
      out.append(" -x -a '(__keyescrow_names ").append(NamesOf(option)).append(")'");
    } else if (option.completes == Completes::kNothing) {
      out.append(" -x");
    } else if (option.completes == Completes::kFolder) {
      out.append(" -x -a '(__fish_complete_directories)'");
    } else {
      out.append(" -r -F");
    }
  }
  return out + " -d " + FishQuoted(option.help) + "\n";
}

// FishNames writes the function that lists names, from what stands before the cursor.
std::string FishNames() {
  return R"sh(function __keyescrow_names  # __keyescrow_names KIND
  set -l words (commandline -opc)
  set -l program $words[1]
  set -l where
  set -l names
  set -e words[1]
  while set -q words[1]
    set -l word $words[1]
    set -e words[1]
    switch $word
      case --state --config
        set -q words[1]; and set -a where $word $words[1]; and set -e words[1]
      case )sh" +
         Join(ValuedOptions()) +
         R"sh(
        set -e words[1]
      case '-*' )sh";
}

}  // namespace

std::string FishScript() {
  std::string groups;
  for (const std::string_view first : FirstWords()) {
    if (!SecondWords(first).empty()) groups.append(" ").append(first);
  }
  std::string out = "# fish completion of keyescrow, made by 'keyescrow completion fish'\n" +
                    FishNames() + groups +
                    R"sh(
      case '*'
        set -a names $word
    end
  end
  $program $where completion-names $argv[1] $names[2] 2>/dev/null </dev/null
end
)sh"
                    "complete -c keyescrow -f\n";
  for (const OptionSpec& option : GlobalOptionSpecs()) out += FishOption(option, "");
  out += "complete -c keyescrow -l help -s h -d 'show help by example'\n";
  for (const std::string_view first : FirstWords()) {
    const auto seconds = SecondWords(first);
    std::string purpose = Join(seconds);
    for (const CommandSpec* command : AllCommands()) {
      if (command->name == first) purpose = command->purpose;
    }
    out += "complete -c keyescrow -n __fish_use_subcommand -a " + std::string(first) + " -d " +
           FishQuoted(purpose) + "\n";
  }
  for (const CommandSpec* command : AllCommands()) {
    const std::string first(FirstWord(command->name));
    const std::string second(SecondWord(command->name));
    std::string condition = " -n '__fish_seen_subcommand_from " + first;
    if (!second.empty()) {
      out += "complete -c keyescrow" + condition + "; and not __fish_seen_subcommand_from " +
             Join(SecondWords(first)) + "' -a " + second + " -d " + FishQuoted(command->purpose) +
             "\n";
      condition += "; and __fish_seen_subcommand_from " + second;
    }
    condition += "'";
    for (const OptionSpec* option : OptionsOf(*command)) out += FishOption(*option, condition);
    for (const OptionSpec& argument : command->arguments) {
      if (argument.has_words) {
        out += "complete -c keyescrow" + condition + " -a " + FishQuoted(Words(argument)) + "\n";
      } else if (const std::string_view names = NamesOf(*command, argument); !names.empty()) {
        const bool or_file = argument.completes == Completes::kFile;
        out.append("complete -c keyescrow").append(condition).append(or_file ? " -F" : "");
        out.append(" -a '(__keyescrow_names ").append(names).append(")'\n");
      } else if (argument.completes == Completes::kFile) {
        out += "complete -c keyescrow" + condition + " -F\n";
      }
    }
  }
  return out;
}

}  // namespace keyescrow::agent::completion
