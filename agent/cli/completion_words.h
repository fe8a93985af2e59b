// What the scripts of all shells are made of: the words of the command table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/command_table.h"

namespace keyescrow::agent::completion {

std::string_view FirstWord(std::string_view name);
std::string_view SecondWord(std::string_view name);
std::vector<std::string_view> FirstWords();
std::vector<std::string_view> SecondWords(std::string_view first);
std::vector<const OptionSpec*> OptionsOf(const CommandSpec& command);
std::string Words(const OptionSpec& spec);
std::string Join(const std::vector<std::string_view>& words);
std::string JoinBy(const std::vector<std::string_view>& words, char separator);
void AppendNames(std::string& out, const OptionSpec& option);

// ---- names that stand in the store: `keyescrow completion-names KIND` lists them

// NamesOf tells which names an argument takes by what the table calls it; "" for none, as where a
// new name is made.
std::string_view NamesOf(const CommandSpec& command, const OptionSpec& argument);
std::string_view NamesOf(const OptionSpec& option);

// ValuedOptions lists all options that take a value, each once: words to skip.
std::vector<std::string_view> ValuedOptions();

// ---- one script a file

std::string BashScript();
std::string ZshScript();
std::string FishScript();

}  // namespace keyescrow::agent::completion
