// bash's completions.
#include <algorithm>

#include "agent/cli/completion_words.h"

namespace keyescrow::agent::completion {
namespace {

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
      out.append(") mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n");
    } else if (option.completes == Completes::kFolder) {
      out.append(") mapfile -t COMPREPLY < <(compgen -d -- \"$cur\") ;;\n");
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

}  // namespace

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
      "  mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
      "}\n"
      "complete -o filenames -F _keyescrow keyescrow\n");
  return out;
}

}  // namespace keyescrow::agent::completion
