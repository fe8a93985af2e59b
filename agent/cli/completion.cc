#include "agent/cli/completion.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "agent/cli/command_table.h"

namespace keyescrow::agent {
namespace {

std::string_view FirstWord(std::string_view name) { return name.substr(0, name.find(' ')); }

std::string_view SecondWord(std::string_view name) {
  const std::size_t space = name.find(' ');
  return space == std::string_view::npos ? std::string_view() : name.substr(space + 1);
}

std::vector<std::string_view> FirstWords() {
  std::vector<std::string_view> words;
  for (const CommandSpec* command : AllCommands()) {
    const std::string_view word = FirstWord(command->name);
    if (std::ranges::find(words, word) == words.end()) words.push_back(word);
  }
  return words;
}

std::vector<std::string_view> SecondWords(std::string_view first) {
  std::vector<std::string_view> words;
  for (const CommandSpec* command : AllCommands()) {
    if (FirstWord(command->name) == first && !SecondWord(command->name).empty()) {
      words.push_back(SecondWord(command->name));
    }
  }
  return words;
}

std::vector<const OptionSpec*> OptionsOf(const CommandSpec& command) {
  std::vector<const OptionSpec*> options;
  for (const auto group : {command.options, command.password_options, command.pin_options}) {
    for (const OptionSpec& option : group) options.push_back(&option);
  }
  return options;
}

std::string Words(const OptionSpec& spec) {
  std::string words(spec.value);
  std::ranges::replace(words, '|', ' ');
  return words;
}

std::string Join(const std::vector<std::string_view>& words) {
  std::string joined;
  for (const std::string_view word : words) {
    if (!joined.empty()) joined.push_back(' ');
    joined.append(word);
  }
  return joined;
}

void AppendNames(std::string& out, const OptionSpec& option) {
  if (option.letter != 0) out.append(" -").append(1, option.letter);
  out.append(" ").append(option.name);
}

// ---- names that stand in the store: `keyescrow completion-names KIND` lists them

// NamesOf tells which names an argument takes by what the table calls it; "" for none, as where a
// new name is made.
std::string_view NamesOf(const CommandSpec& command, const OptionSpec& argument) {
  constexpr std::string_view kMakers[] = {"token add", "token keygen", "key add"};
  if (argument.name == "ID") return "paths";
  const bool is_new = std::ranges::find(kMakers, command.name) != std::end(kMakers);
  if (is_new || !argument.name.starts_with("NAME")) return "";
  const std::string_view first = FirstWord(command.name);
  if (first == "token") return "tokens";
  return first == "recovery-key" || first == "host" ? "" : "keys";
}

std::string_view NamesOf(const OptionSpec& option) {
  if (option.name == "--lose" || option.name == "--steal") return "losses";
  return option.value == "ID" ? "paths" : "";
}

// ValuedOptions lists all options that take a value, each once: words to skip.
std::vector<std::string_view> ValuedOptions() {
  std::vector<std::string_view> names;
  const auto add = [&](const OptionSpec& option) {
    if (option.IsFlag() || std::ranges::find(names, option.name) != names.end()) return;
    names.push_back(option.name);
  };
  for (const OptionSpec& option : GlobalOptionSpecs()) add(option);
  for (const CommandSpec* command : AllCommands()) {
    for (const OptionSpec* option : OptionsOf(*command)) add(*option);
  }
  return names;
}

std::string JoinBy(const std::vector<std::string_view>& words, char separator) {
  std::string joined = Join(words);
  std::ranges::replace(joined, ' ', separator);
  return joined;
}

// ---- bash

// BashValueCases writes the branches that complete the value of the option before the cursor.
std::string BashValueCases() {
  std::vector<std::string_view> seen;
  std::string out;
  const auto add = [&](const OptionSpec& option) {
    if (option.IsFlag() || std::ranges::find(seen, option.name) != seen.end()) return;
    seen.push_back(option.name);
    out.append("    ").append(option.name);
    if (option.letter != 0) out.append("|-").append(1, option.letter);
    if (option.has_words) {
      out.append(") COMPREPLY=($(compgen -W '")
          .append(Words(option))
          .append("' -- \"$cur\")) ;;\n");
    } else if (!NamesOf(option).empty()) {
      out.append(") _keyescrow_names ").append(NamesOf(option)).append(" ;;\n");
    } else if (option.completes == Completes::kFile) {
      out.append(") COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n");
    } else if (option.completes == Completes::kFolder) {
      out.append(") COMPREPLY=($(compgen -d -- \"$cur\")) ;;\n");
    } else {
      out.append(") COMPREPLY=() ;;\n");
    }
  };
  for (const OptionSpec& option : GlobalOptionSpecs()) add(option);
  for (const CommandSpec* command : AllCommands()) {
    for (const OptionSpec* option : OptionsOf(*command)) add(*option);
  }
  return out;
}

// BashNameCases writes the branches for arguments that are names: the first, or what follows it.
std::string BashNameCases(bool first) {
  std::string out;
  for (const CommandSpec* command : AllCommands()) {
    for (const OptionSpec& argument : command->arguments) {
      const std::string_view names = NamesOf(*command, argument);
      if (names.empty() || first == (names == "paths")) continue;
      const bool is_pair = !SecondWord(command->name).empty();
      out.append("      '").append(command->name).append(is_pair ? "'" : " '*");
      out.append(") _keyescrow_names ").append(names);
      if (argument.completes != Completes::kFile) out.append("; return");
      out.append(" ;;\n");
    }
  }
  return out;
}

std::string BashScript() {
  std::string globals = " --help";
  for (const OptionSpec& option : GlobalOptionSpecs()) AppendNames(globals, option);
  std::string out =
      R"sh(# bash completion of keyescrow, made by 'keyescrow completion bash'
_keyescrow_names() {  # _keyescrow_names KIND: offers names of the store; looks at the words of _keyescrow
  COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]/#\~/$HOME}" "${where[@]}" completion-names "$1" \
    ${name:+"$name"} 2>/dev/null </dev/null)" -- "$cur"))
  # A name has slashes and is no file: it is shown whole.
  [[ ${#COMPREPLY[@]} -gt 0 ]] && compopt +o filenames 2>/dev/null
  # bash completes what follows the last colon.
  [[ $cur == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}")
}
_keyescrow() {
  local cur prev word first= second= name= i where=()
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD-1]}
  if [[ $prev == : ]]; then
    prev=${COMP_WORDS[COMP_CWORD-3]} cur=${COMP_WORDS[COMP_CWORD-2]}:$cur
  elif [[ $cur == : ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]} cur=${COMP_WORDS[COMP_CWORD-1]}:
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in
    --state|--config) ((++i < COMP_CWORD)) && where+=("$word" "${COMP_WORDS[i]}") ;;
    )sh" +
      JoinBy(ValuedOptions(), '|') + R"sh() ((i++)) ;;
    -*) ;;
    *) if [[ -z $first ]]; then first=$word; elif [[ -z $second ]]; then second=$word
       elif [[ -z $name ]]; then name=$word; fi ;;
    esac
  done
  case $first in
)sh";
  std::vector<std::string_view> groups;
  for (const std::string_view first : FirstWords()) {
    if (!SecondWords(first).empty()) groups.push_back(first);
  }
  out.append("    ").append(JoinBy(groups, '|')).append(") ;;\n    *) name=$second ;;\n  esac\n");
  out.append("  case $prev in\n" + BashValueCases() +
             "    *) prev= ;;\n"
             "  esac\n"
             "  [[ -n $prev ]] && return\n"
             "  local options='" +
             globals.substr(1) +
             "'\n"
             "  case $first in\n"
             "    '') COMPREPLY=($(compgen -W \"" +
             Join(FirstWords()) +
             " $options --version\" -- \"$cur\"))"
             "; return ;;\n");
  for (const std::string_view first : groups) {
    out.append("    ").append(first).append(
        ") if [[ -z $second ]]; then COMPREPLY=($(compgen -W \"");
    out.append(Join(SecondWords(first))).append(" $options\" -- \"$cur\")); return; fi ;;\n");
  }
  out.append("  esac\n  case \"$first $second\" in\n");
  for (const CommandSpec* command : AllCommands()) {
    std::string names;
    for (const OptionSpec* option : OptionsOf(*command)) AppendNames(names, *option);
    for (const OptionSpec& argument : command->arguments) {
      if (argument.has_words) names.append(" ").append(Words(argument));
    }
    if (names.empty()) continue;
    const bool is_pair = !SecondWord(command->name).empty();
    out.append("    '").append(command->name).append(is_pair ? "'" : " '*");
    out.append(") options+='").append(names).append("' ;;\n");
  }
  out.append(
      "  esac\n"
      "  if [[ $cur == -* || $first == completion ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
      "    return\n"
      "  fi\n"
      "  if [[ -z $name ]]; then\n"
      "    case \"$first $second\" in\n" +
      BashNameCases(true) +
      "    esac\n"
      "    [[ ${#COMPREPLY[@]} -gt 0 ]] && return\n"
      "  else\n"
      "    case \"$first $second\" in\n" +
      BashNameCases(false) +
      "    esac\n"
      "  fi\n"
      "  COMPREPLY=($(compgen -f -- \"$cur\"))\n"
      "}\n"
      "complete -o filenames -F _keyescrow keyescrow\n");
  return out;
}

// ---- zsh and fish: words in single quotes

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

}  // namespace

std::string CompletionScript(Shell shell) {
  switch (shell) {
    case Shell::kBash: return BashScript();
    case Shell::kZsh: return ZshScript();
    case Shell::kFish: return FishScript();
  }
  return "";
}

}  // namespace keyescrow::agent
