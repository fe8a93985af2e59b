#include "agent/cli/completion_words.h"

#include <algorithm>

namespace keyescrow::agent::completion {

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

}  // namespace keyescrow::agent::completion
