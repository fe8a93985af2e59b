#include "agent/cli/completion.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "agent/cli/command_table.h"

namespace keyescrow::agent {
namespace {

// RunShell returns what `command` printed; FILE in it is a file with `script`.
std::string RunShell(const std::string& script, std::string command) {
  std::string path = testing::TempDir() + "completion.XXXXXX";
  const int fd = mkstemp(path.data());
  EXPECT_GE(fd, 0);
  close(fd);
  std::ofstream(path) << script;
  command.replace(command.find("FILE"), 4, path);
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::string out;
  char bytes[512];
  while (pipe != nullptr && fgets(bytes, sizeof bytes, pipe) != nullptr) out += bytes;
  const int status = pipe == nullptr ? -1 : pclose(pipe);
  EXPECT_EQ(status, 0) << out;
  std::remove(path.c_str());
  return out;
}

bool HaveShell(const std::string& shell) {
  return std::system(("command -v " + shell + " >/dev/null 2>&1").c_str()) == 0;
}

// Complete returns what bash offers for the last of `words`, space-separated.
std::string Complete(const std::string& words) {
  return RunShell(CompletionScript(Shell::kBash),
                  "bash -c 'source FILE; COMP_WORDS=(" + words +
                      "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _keyescrow; "
                      "echo -n \"${COMPREPLY[*]}\"'");
}

TEST(Completion, EveryScriptParses) {
  EXPECT_EQ(RunShell(CompletionScript(Shell::kBash), "bash -n FILE"), "");
  if (HaveShell("zsh")) {
    EXPECT_EQ(RunShell(CompletionScript(Shell::kZsh), "zsh -n FILE"), "");
  }
  if (HaveShell("fish")) {
    EXPECT_EQ(RunShell(CompletionScript(Shell::kFish), "fish -n FILE"), "");
  }
}

TEST(Completion, EveryScriptKnowsEveryCommandAndOption) {
  for (const Shell shell : {Shell::kBash, Shell::kZsh, Shell::kFish}) {
    const std::string script = CompletionScript(shell);
    for (const CommandSpec* command : AllCommands()) {
      const std::string word(command->name.substr(0, command->name.find(' ')));
      EXPECT_NE(script.find(word), std::string::npos) << word;
      for (const auto group : {command->options, command->password_options, command->pin_options}) {
        for (const OptionSpec& option : group) {
          const std::string name(shell == Shell::kFish ? "-l " + std::string(option.name.substr(2))
                                                       : option.name);
          EXPECT_NE(script.find(name), std::string::npos) << name;
        }
      }
    }
  }
}

TEST(Completion, BashOffersCommandsOptionsAndWords) {
  EXPECT_EQ(Complete("keyescrow res"), "restore");
  EXPECT_EQ(Complete("keyescrow import-"), "import-event");
  EXPECT_EQ(Complete("keyescrow token \"\"").substr(0, 29), "add list show keygen remove -");
  EXPECT_EQ(Complete("keyescrow --state /tmp token k"), "keygen");
  EXPECT_EQ(Complete("keyescrow restore x --vi"), "--via");
  EXPECT_EQ(Complete("keyescrow restore x --js"), "--json");
  EXPECT_EQ(Complete("keyescrow token add n u --mod"), "--module");
  EXPECT_EQ(Complete("keyescrow backup x --kdf \"\""), "argon2id pbkdf2-sha512");
  EXPECT_EQ(Complete("keyescrow --color a"), "auto always");
  EXPECT_EQ(Complete("keyescrow completion \"z\""), "zsh");
  EXPECT_EQ(Complete("keyescrow restore /etc/passw").substr(0, 11), "/etc/passwd");
}

}  // namespace
}  // namespace keyescrow::agent
