// zsh's completions; words stand in single quotes.
#include "agent/cli/completion_words.h"

namespace keyescrow::agent::completion {
namespace {

std::string ZshQuoted(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out.append("'\\''");
    } else if (c == '[' || c == ']' || c == ':' || c == '\\') {
      out.append("\\").append(1, c);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string ZshOption(const OptionSpec& option) {
  std::string out = "    ";
  if (option.repeatable) {
    out.append("'*");
  } else {
    out.append("'");
  }
  std::string tail = "[" + ZshQuoted(option.help) + "]";
  if (!option.IsFlag()) {
    std::string what = option.has_words ? "value" : ZshQuoted(option.value);
    tail.append(":").append(what).append(":");
    if (option.has_words) tail.append("(").append(Words(option)).append(")");
    if (!NamesOf(option).empty()) tail.append(" _keyescrow_names ").append(NamesOf(option));
    if (option.completes == Completes::kFile) tail.append("_files");
    if (option.completes == Completes::kFolder) tail.append("_files -/");
  }
  const std::string_view equals = option.IsFlag() ? "" : "=";
  std::string line = out + std::string(option.name) + std::string(equals) + tail + "' \\\n";
  if (option.letter != 0) line += out + "-" + option.letter + tail + "' \\\n";
  return line;
}

std::string ZshArguments(const CommandSpec& command) {
  std::string out = "    _arguments -S \\\n";
  for (const OptionSpec* option : OptionsOf(command)) out += ZshOption(*option);
  for (const OptionSpec& option : GlobalOptionSpecs()) out += ZshOption(option);
  for (const OptionSpec& argument : command.arguments) {
    out += std::string("    '") + (argument.repeatable ? "*" : "") + ":" +
           ZshQuoted(argument.has_words ? "value" : argument.name) + ":";
    const std::string_view names = NamesOf(command, argument);
    if (argument.has_words) out += "(" + Words(argument) + ")";
    if (!names.empty()) {
      // A name that also may be a file: files where no name fits.
      const bool or_file = argument.completes == Completes::kFile;
      // The blank keeps _arguments from putting words of its own before ours.
      out.append(or_file ? " _keyescrow_names_or_files " : " _keyescrow_names ").append(names);
    } else if (argument.completes == Completes::kFile) {
      out += "_files";
    }
    out += "' \\\n";
  }
  return out + "    '--help[show help by example]'\n";
}

// ZshNames writes the functions that list names; they look at the words and at _keyescrow's
// program.
std::string ZshNames() {
  return R"sh(_keyescrow_names() {  # _keyescrow_names KIND
  local -a where found
  local name= word
  local -i i
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    case $word in
    --state|--config) where+=($word ${words[i+1]/#\~/$HOME}); ((i++)) ;;
    --state=*|--config=*) where+=(${word%%=*} ${${word#*=}/#\~/$HOME}) ;;
    )sh" +
         JoinBy(ValuedOptions(), '|') +
         R"sh() ((i++)) ;;
    -*) ;;
    *) [[ -z $name ]] && name=$word ;;
    esac
  done
  found=(${(f)"$($program $where completion-names $1 ${name:+$name} 2>/dev/null </dev/null)"})
  ((${#found})) && compadd -- $found
}
_keyescrow_names_or_files() { _keyescrow_names $1 || _files }
)sh";
}

}  // namespace

std::string ZshScript() {
  std::string out =
      "#compdef keyescrow\n"
      "# zsh completion of keyescrow, made by 'keyescrow completion zsh'\n" +
      ZshNames() +
      "_keyescrow() {\n"
      "  local -a names\n"
      "  local program=${words[1]/#\\~/$HOME}\n"
      "  local first=${words[2]} second=${words[3]}\n"
      "  if ((CURRENT == 2)); then\n"
      "    names=(" +
      Join(FirstWords()) +
      ")\n"
      "    _describe command names\n"
      "    return\n"
      "  fi\n"
      "  case $first in\n";
  for (const std::string_view first : FirstWords()) {
    const auto seconds = SecondWords(first);
    if (seconds.empty()) continue;
    out.append("  ").append(first).append(") if ((CURRENT == 3)); then names=(");
    out.append(Join(seconds)).append("); _describe command names; return; fi\n");
    out.append("    shift words; ((CURRENT--)) ;;\n");
  }
  out.append("  *) second= ;;\n  esac\n  shift words; ((CURRENT--))\n");
  out.append("  case \"$first${second:+ $second}\" in\n");
  for (const CommandSpec* command : AllCommands()) {
    out.append("  '").append(command->name).append("')\n").append(ZshArguments(*command));
    out.append("    ;;\n");
  }
  out.append("  esac\n}\nif [[ $zsh_eval_context[-1] == loadautofunc ]]; then _keyescrow \"$@\"; ");
  out.append("else compdef _keyescrow keyescrow; fi\n");
  return out;
}

}  // namespace keyescrow::agent::completion
