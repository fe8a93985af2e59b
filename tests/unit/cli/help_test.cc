#include "agent/cli/help.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "agent/cli/command_line.h"
#include "agent/cli/command_table.h"

namespace keyescrow::agent {
namespace {

// ShellWords splits an example as the shell would: single quotes only, up to a redirection or pipe.
std::vector<std::string> ShellWords(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false;
  bool any = false;
  for (const char c : line) {
    if (c == '\'') {
      quoted = !quoted;
      any = true;
    } else if (c == ' ' && !quoted) {
      if (any || !word.empty()) words.push_back(std::exchange(word, ""));
      any = false;
    } else if ((c == '>' || c == '|') && !quoted) {
      break;
    } else {
      word.push_back(c);
    }
  }
  if (any || !word.empty()) words.push_back(word);
  return words;
}

TEST(Help, EveryExampleParses) {
  for (const CommandSpec* command : AllCommands()) {
    EXPECT_GE(command->examples.size(), 2U) << command->name;
    EXPECT_LE(command->examples.size(), 6U) << command->name;
    for (const Example& example : command->examples) {
      std::vector<std::string> words = ShellWords(example.line);
      if (!words.empty() && words.front() == "source") continue;
      std::vector<const char*> argv;
      for (std::string& word : words) {
        if (word == "THUMBPRINT") word.assign(43, 'A');  // a reader puts a real one there
        argv.push_back(word.c_str());
      }
      GlobalOptions global;
      const auto parsed = ParseCommandLine(static_cast<int>(argv.size()), argv.data(), global);
      EXPECT_TRUE(parsed) << example.line << ": " << parsed.error().message();
    }
  }
}

TEST(Help, EveryCommandSaysPurposeOptionsAndExitStatus) {
  for (const CommandSpec* command : AllCommands()) {
    const std::string help = CommandHelp(*command);
    EXPECT_NE(help.find(command->purpose.substr(0, 40)), std::string::npos);
    EXPECT_NE(help.find("Examples\n"), std::string::npos);
    EXPECT_NE(help.find("Exit status\n   0  done"), std::string::npos);
    for (const OptionSpec& option : command->options) {
      EXPECT_NE(help.find(option.name), std::string::npos);
    }
    EXPECT_FALSE(command->exits.empty());
    EXPECT_EQ(command->purpose.find('\n'), std::string_view::npos);
    EXPECT_NE(command->purpose.back(), '.');
  }
}

TEST(Help, TheJourneysNameEveryCommandAndNoneOfLaterVersions) {
  const std::string help = GeneralHelp();
  for (const CommandSpec* command : AllCommands()) {
    const std::string word(command->name.substr(command->name.find(' ') + 1));
    EXPECT_NE(help.find(word), std::string::npos) << word;
  }
  for (const std::string_view later : LaterCommands()) {
    EXPECT_EQ(help.find("keyescrow " + std::string(later) + " "), std::string::npos) << later;
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100U) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
}

TEST(CommandTable, NamesAreUniqueAndWordsMatchTheirEnumerations) {
  std::set<std::string_view> names;
  for (const CommandSpec* command : AllCommands()) {
    EXPECT_TRUE(names.insert(command->name).second) << command->name;
    std::set<std::string_view> options;
    const auto expect_new = [&](std::span<const OptionSpec> group) {
      for (const OptionSpec& option : group) {
        EXPECT_TRUE(options.insert(option.name).second) << command->name << " " << option.name;
        EXPECT_NE(option.store, nullptr);
      }
    };
    expect_new(GlobalOptionSpecs());
    expect_new(command->options);
    expect_new(command->password_options);
    expect_new(command->pin_options);
  }
  GlobalOptions global;
  for (const auto& [word, mode] :
       {std::pair{"auto", ColorMode::kAuto}, std::pair{"always", ColorMode::kAlways},
        std::pair{"never", ColorMode::kNever}}) {
    const char* argv[] = {"keyescrow", "--color", word, "list"};
    ASSERT_TRUE(ParseCommandLine(4, argv, global));
    EXPECT_EQ(global.color, mode);
  }
}

// The man page names a command as ".Ss token add" and an option as ".It Fl -module Ar SO".
TEST(ManPage, NamesEveryCommandAndOptionOfTheTableAndNoOther) {
  std::ifstream file(KEYESCROW_SOURCE_DIR "/agent/docs/man/keyescrow.1");
  ASSERT_TRUE(file.is_open());
  std::set<std::string> in_page;
  std::string section;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(".Sh ")) section = "";
    if (line.starts_with(".Ss ")) {
      section = line.substr(4);
      in_page.insert(section);
    }
    if (!line.starts_with(".It Fl ")) continue;
    const std::size_t start = line.find("-");
    if (start == std::string::npos) continue;
    in_page.insert(section + " -" + line.substr(start, line.find(' ', start) - start));
  }
  std::set<std::string> in_table = {" --help"};
  for (const OptionSpec& option : GlobalOptionSpecs()) {
    in_table.insert(" " + std::string(option.name));
  }
  for (const CommandSpec* command : AllCommands()) {
    in_table.insert(std::string(command->name));
    for (const auto group : {command->options, command->password_options, command->pin_options}) {
      for (const OptionSpec& option : group) {
        in_table.insert(std::string(command->name) + " " + std::string(option.name));
      }
    }
  }
  EXPECT_EQ(in_page, in_table);
}

}  // namespace
}  // namespace keyescrow::agent
