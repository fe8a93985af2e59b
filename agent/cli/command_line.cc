#include "agent/cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "agent/cli/command_table.h"
#include "agent/cli/commands/specs.h"
#include "agent/cli/help.h"
#include "agent/cli/terminal_text.h"
#include "envelope/base/base64url.h"
#include "envelope/base/nearest_word.h"

namespace keyescrow::agent {
namespace {

using Words = std::span<const char* const>;

constexpr std::size_t kMaxOwnersShown = 3;  // commands that are named where an option is not known

std::string Quoted(std::string_view text) { return "'" + EscapeForTerminal(text) + "'"; }

// LooksLikeThumbprint: 32 bytes in base64url. One agent in 64 has a thumbprint that begins with
// '-', and it is typed at three in the morning.
bool LooksLikeThumbprint(std::string_view word) {
  if (word.size() != 43) return false;
  const auto bytes = DecodeBase64Url(word);
  return bytes && bytes->size() == 32;
}

bool IsOption(std::string_view word) {
  return word.size() > 1 && word.front() == '-' && !LooksLikeThumbprint(word);
}

// A value never begins with '-' (but for "-" alone, a thumbprint, and after '='), so these two can
// be looked for before anything else is understood.
bool Mentions(Words words, std::string_view wanted) {
  for (const std::string_view word : words) {
    if (word == "--") return false;
    if (word == wanted) return true;
  }
  return false;
}
bool AsksForHelp(Words words) { return Mentions(words, "--help") || Mentions(words, "-h"); }

std::optional<Error> RefuseSecretArgument(std::string_view name) {
  constexpr std::string_view kPasswords[] = {"--password",   "--passwd",       "--pass",
                                             "--passphrase", "--new-password", "--secret"};
  constexpr std::string_view kPins[] = {"--pin", "--user-pin", "--so-pin"};
  if (std::ranges::find(kPasswords, name) != std::end(kPasswords)) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 std::string(name) +
                     " is refused: other processes and the shell's history could read a password "
                     "that is an argument",
                 "leave it out to be asked, or use --password-file FILE or --password-fd N");
  }
  if (std::ranges::find(kPins, name) != std::end(kPins)) {
    return Error(
        ErrorCode::kUsage, Action::kFixInput,
        std::string(name) +
            " is refused: other processes and the shell's history could read a PIN that is "
            "an argument",
        "leave it out to be asked, or use --pin-file FILE or --pin-fd N");
  }
  return std::nullopt;
}

std::string_view FirstWord(std::string_view name) { return name.substr(0, name.find(' ')); }

// Parser walks over the words after the program's name, once.
class Parser {
 public:
  Parser(Words words, GlobalOptions& global) : words_(words), global_(global) {}

  Result<ParsedCommand> Parse();

 private:
  std::string HelpCommand() const {
    return command_ == nullptr ? "keyescrow --help"
                               : "keyescrow " + std::string(command_->name) + " --help";
  }
  Error Wrong(std::string message) const { return UsageError(std::move(message), HelpCommand()); }

  // NextWord reads global options up to the next word that is none; "" at the end.
  Result<std::string_view> NextWord();
  Result<const CommandSpec*> FindCommand();
  Status ReadOption(std::string_view word);
  Status ReadArgument(std::string_view word);
  Status CheckComplete() const;
  const OptionSpec* FindOption(std::string_view name) const;
  Error UnknownOption(std::string_view name) const;
  std::vector<std::string_view> OwnersOf(std::string_view name) const;
  std::array<std::span<const OptionSpec>, 4> OptionGroups() const;

  Words words_;
  std::size_t next_ = 0;
  GlobalOptions& global_;
  CommandOptions options_;
  const CommandSpec* command_ = nullptr;
  std::vector<const OptionSpec*> given_;
  std::size_t num_arguments_ = 0;
};

std::array<std::span<const OptionSpec>, 4> Parser::OptionGroups() const {
  if (command_ == nullptr) return {GlobalOptionSpecs()};
  return {GlobalOptionSpecs(), command_->options, command_->password_options,
          command_->pin_options};
}

const OptionSpec* Parser::FindOption(std::string_view name) const {
  for (const auto group : OptionGroups()) {
    for (const OptionSpec& option : group) {
      const bool is_letter = name.size() == 2 && option.letter != 0 && name[1] == option.letter;
      if (option.name == name || is_letter) return &option;
    }
  }
  return nullptr;
}

Error Parser::UnknownOption(std::string_view name) const {
  if (auto refused = RefuseSecretArgument(name)) return *std::move(refused);
  const std::string message = "unknown option " + Quoted(name);
  std::vector<std::string_view> known = {"--help"};
  for (const auto group : OptionGroups()) {
    for (const OptionSpec& option : group) known.push_back(option.name);
  }
  if (const std::string_view nearest = NearestWord(name, known); !nearest.empty()) {
    return Wrong(message).WithHint("did you mean " + std::string(nearest) + "? see '" +
                                   HelpCommand() + "'");
  }
  const std::vector<std::string_view> owners = OwnersOf(name);
  if (owners.empty()) return Wrong(message);
  std::string list;
  const std::size_t num_shown = std::min(owners.size(), kMaxOwnersShown);
  for (std::size_t index = 0; index < num_shown; ++index) {
    const bool last = index + 1 == owners.size();
    list.append(index == 0 ? "" : last ? " and " : ", ").append("'").append(owners[index]) += "'";
  }
  if (num_shown < owners.size()) list += fmt::format(" and {} more", owners.size() - num_shown);
  return Wrong(message).WithHint(
      fmt::format("{} belongs to {}; see '{}'", name, list, HelpCommand()));
}

// OwnersOf lists the other commands that take an option.
std::vector<std::string_view> Parser::OwnersOf(std::string_view name) const {
  std::vector<std::string_view> owners;
  for (const CommandSpec* other : AllCommands()) {
    if (other == command_) continue;
    bool takes = false;
    for (const auto group : {other->options, other->password_options, other->pin_options}) {
      takes = takes || std::ranges::find(group, name, &OptionSpec::name) != group.end();
    }
    if (takes) owners.push_back(other->name);
  }
  return owners;
}

Status Parser::ReadOption(std::string_view word) {
  const std::size_t equals = word.starts_with("--") ? word.find('=') : std::string_view::npos;
  const std::string_view name = word.substr(0, equals);
  const OptionSpec* option = FindOption(name);
  if (option == nullptr) return UnknownOption(name);
  const std::string spelled(name);
  if (!option->repeatable && !option->IsFlag() &&
      std::ranges::find(given_, option) != given_.end()) {
    return Wrong(spelled + " is given twice");
  }
  given_.push_back(option);
  std::string_view value;
  if (option->IsFlag()) {
    if (equals != std::string_view::npos) return Wrong(spelled + " takes no value");
  } else if (equals != std::string_view::npos) {
    value = word.substr(equals + 1);
  } else if (next_ < words_.size() && !IsOption(words_[next_])) {
    value = words_[next_++];
  } else {
    const std::string what(option->value);
    return Wrong(spelled + " needs a value: " + what)
        .WithHint("write " + spelled + " " + what + ", or " + std::string(option->name) +
                  "=VALUE where the value begins with '-'");
  }
  if (!option->IsFlag() && value.empty()) {
    return Wrong(spelled + " has an empty value")
        .WithHint("is a shell variable unset? see '" + HelpCommand() + "'");
  }
  return option->store(*option, {global_, options_}, value);
}

Status Parser::ReadArgument(std::string_view word) {
  const auto arguments = command_->arguments;
  const bool verbatim =
      !arguments.empty() && arguments.back().verbatim && num_arguments_ >= arguments.size();
  if (word.empty() && !verbatim) {
    return Wrong("an argument is empty")
        .WithHint("is a shell variable unset? see '" + HelpCommand() + "'");
  }
  if (num_arguments_ >= arguments.size() && !(!arguments.empty() && arguments.back().repeatable)) {
    return Wrong("unexpected argument " + Quoted(word));
  }
  const OptionSpec& argument = arguments[std::min(num_arguments_, arguments.size() - 1)];
  ++num_arguments_;
  return argument.store(argument, {global_, options_}, word);
}

Status Parser::CheckComplete() const {
  for (std::size_t index = num_arguments_; index < command_->arguments.size(); ++index) {
    const OptionSpec& argument = command_->arguments[index];
    if (argument.required) return Wrong(std::string(argument.name) + " is missing");
  }
  for (const OptionSpec& option : command_->options) {
    if (option.required && std::ranges::find(given_, &option) == given_.end()) {
      return Wrong(std::string(option.name) + " " + std::string(option.value) + " is missing");
    }
  }
  return command_->check == nullptr ? Ok() : command_->check(options_);
}

Result<std::string_view> Parser::NextWord() {
  while (next_ < words_.size()) {
    const std::string_view word = words_[next_++];
    if (!IsOption(word)) return word;
    RETURN_IF_ERROR(ReadOption(word));
  }
  return std::string_view();
}

// FindCommand returns null where only help was asked for.
Result<const CommandSpec*> Parser::FindCommand() {
  ASSIGN_OR_RETURN(const std::string_view word, NextWord());
  if (word.empty()) {
    return Wrong("which command? none was given");
  }
  if (word == kCompletionNamesCommand.name) return &kCompletionNamesCommand;
  const auto commands = AllCommands();
  const auto single = std::ranges::find(commands, word, &CommandSpec::name);
  if (single != commands.end()) return *single;
  const bool is_group = std::ranges::any_of(
      commands, [&](const CommandSpec* command) { return FirstWord(command->name) == word; });
  std::vector<std::string_view> known;
  std::string_view wrong = word;
  std::string typed(word);
  if (is_group) {
    ASSIGN_OR_RETURN(const std::string_view second, NextWord());
    if (second.empty()) {
      return UsageError(typed + " what? a second word is missing",
                        "keyescrow " + typed + " --help");
    }
    wrong = second;
    typed.append(" ").append(second);
    for (const CommandSpec* command : commands) {
      if (command->name == typed) return command;
      if (FirstWord(command->name) == word) known.push_back(command->name.substr(word.size() + 1));
    }
  } else {
    for (const CommandSpec* command : commands) known.push_back(FirstWord(command->name));
  }
  const auto later = LaterCommands();
  if (std::ranges::find(later, typed) != later.end()) {
    return UsageError(Quoted(typed) + " is not in this version", "keyescrow --help");
  }
  const std::string help = is_group ? "keyescrow " + std::string(word) + " --help" : HelpCommand();
  Error error = UsageError("unknown command " + Quoted(typed), help);
  const std::string_view nearest = NearestWord(wrong, known);
  if (nearest.empty()) return error;
  const std::string meant = (is_group ? std::string(word) + " " : "") + std::string(nearest);
  return std::move(error).WithHint("did you mean '" + meant + "'? see '" + help + "'");
}

std::string VersionText(const GlobalOptions& global) {
  if (!global.json) return "keyescrow " KEYESCROW_VERSION "\n";
  return "{\n  \"schema\": \"keyescrow/version/1\",\n  \"version\": \"" KEYESCROW_VERSION
         "\",\n  \"envelope_format\": \"keyescrow/1\"\n}\n";
}

// HelpFor answers --help for as much of a command as can be recognised.
std::string HelpFor(Words words) {
  std::vector<std::string_view> named;
  for (const std::string_view word : words) {
    if (!IsOption(word)) named.push_back(word);
  }
  for (std::size_t index = 0; index < named.size(); ++index) {
    std::string two(named[index]);
    if (index + 1 < named.size()) two.append(" ").append(named[index + 1]);
    bool is_group = false;
    for (const CommandSpec* command : AllCommands()) {
      if (command->name == named[index] || command->name == two) return CommandHelp(*command);
      is_group = is_group || FirstWord(command->name) == named[index];
    }
    if (is_group) return GroupHelp(named[index]);
  }
  return GeneralHelp();
}

Result<ParsedCommand> Parser::Parse() {
  global_.json = Mentions(words_, "--json");
  if (AsksForHelp(words_)) return ParsedCommand{"help", TextToPrint{HelpFor(words_)}};
  // --version is the program's only before the command: restore has one of its own.
  for (const std::string_view word : words_) {
    if (word == "--version") return ParsedCommand{"version", TextToPrint{VersionText(global_)}};
    if (!IsOption(word)) break;
  }
  ASSIGN_OR_RETURN(command_, FindCommand());
  options_ = command_->make();
  bool only_arguments = false;
  while (next_ < words_.size()) {
    const std::string_view word = words_[next_++];
    if (!only_arguments && word == "--") {
      only_arguments = true;
      const auto arguments = command_->arguments;
      if (next_ == words_.size() && !arguments.empty() && arguments.back().verbatim) {
        return Wrong(std::string(arguments.back().name) + " is missing after --")
            .WithHint("is a shell variable unset? see '" + HelpCommand() + "'");
      }
    } else if (!only_arguments && IsOption(word)) {
      RETURN_IF_ERROR(ReadOption(word));
    } else {
      RETURN_IF_ERROR(ReadArgument(word));
    }
  }
  RETURN_IF_ERROR(CheckComplete());
  if (command_ == &kVersionCommand) options_ = TextToPrint{VersionText(global_)};
  return ParsedCommand{command_->name, std::move(options_)};
}

}  // namespace

Result<ParsedCommand> ParseCommandLine(int argc, const char* const* argv, GlobalOptions& global) {
  if (argc < 1) return UsageError("no arguments at all", "keyescrow --help");
  return Parser(Words(argv + 1, static_cast<std::size_t>(argc - 1)), global).Parse();
}

}  // namespace keyescrow::agent
