#include "agent/cli/help.h"

#include "agent/cli/exit_code.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kWidth = 88;
constexpr std::size_t kHelpColumn = 34;

constexpr std::string_view kJourneys =
    R"(keyescrow keeps the keys that applications depend on recoverable: by the right people,
with the right hardware, and provably.

Once a year, or in a hurry
  keyescrow wizard                            back up or restore, led by questions

Set up a host
  keyescrow init                              state, store and agent key
  keyescrow token add ops 'pkcs11:token=ops' --module /usr/lib/softhsm/libsofthsm2.so
  keyescrow key add prod/db --source /etc/db/master.key --path 'password & token:ops'
  keyescrow doctor                            what would go wrong, each with its remedy

Back up a key
  keyescrow backup prod/db                    escrow it as declared, and prove it
  keyescrow export prod/db -o db.escrow       a portable file
  keyescrow recovery-sheet prod/db -o db.html a page for the safe, with the envelope as QR codes
  keyescrow recovery-key create team --path EXPR   for backups that need nobody
  keyescrow rotate prod/db                    a new key: escrowed first, then handed over

Restore a key
  keyescrow show prod/db                      which paths can be opened here, or why not
  keyescrow restore prod/db --to /etc/db/master.key
  keyescrow restore db.escrow --to key.bin    on a new machine: no init, no configuration
  keyescrow import-event FILE                 log such a restore afterwards

Change a key's paths
  keyescrow path list prod/db                 what opens it
  keyescrow path add prod/db --path 'password & token:safe'
  keyescrow path replace, path remove         a token was lost, or is not wanted any more
  keyescrow password change prod/db           with any one path open
  keyescrow adopt db1.escrow --path EXPR      a key of another host gets paths on this one

Prove that it works
  keyescrow drill --all                       open every path, and sign that it opened
  keyescrow status                            each path: proven, covered, stale, unproven, broken
  keyescrow what-if --lose token:ops          what would be lost with it; --steal: opened
  keyescrow verify                            everything that can be checked without a secret
  keyescrow gate prod/db -- /usr/bin/postgres start the service only while its key complies

Rules of a security team
  keyescrow policy check policy.toml          which keys would comply under it
  keyescrow policy sign, set, show            signed, put in force, looked at

Audit
  keyescrow audit log                         who did what, when and why
  keyescrow audit checkpoint > db1.checkpoint keep it elsewhere; later 'verify --since'
  keyescrow audit anchor                      in the TPM: an older store put back then shows
  keyescrow audit prove prod/db               a proof for one key's entry
  keyescrow audit export -o db1.tar           the evidence; 'verify db1.tar' checks it anywhere
  keyescrow audit sample -n 25 -o q3.challenge keys drawn at random, for 'drill --challenge'
  keyescrow agent-key export, trust add       whose signatures count

All commands
)";

void AppendWrapped(std::string& out, std::string_view text, std::size_t indent) {
  std::size_t column = indent;
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of(" \n"), text.size());
    const std::string_view word = text.substr(0, end);
    if (!first && column + 1 + word.size() > kWidth) {
      out.append("\n").append(indent, ' ');
      column = indent;
      first = true;
    }
    if (!first) {
      out.push_back(' ');
      ++column;
    }
    out.append(word);
    column += word.size();
    first = false;
    if (end == text.size()) break;
    if (text[end] == '\n') {
      out.append("\n").append(indent, ' ');
      column = indent;
      first = true;
    }
    text.remove_prefix(end + 1);
  }
  out.push_back('\n');
}

// AppendEntry writes "  left   help", the help wrapped in its own column.
void AppendEntry(std::string& out, std::string_view left, std::string_view help) {
  out.append("  ").append(left);
  if (left.size() + 4 > kHelpColumn) {
    out.append("\n").append(kHelpColumn, ' ');
  } else {
    out.append(kHelpColumn - 2 - left.size(), ' ');
  }
  AppendWrapped(out, help, kHelpColumn);
}

void AppendOptions(std::string& out, std::span<const OptionSpec> options) {
  for (const OptionSpec& option : options) {
    std::string left;
    if (option.letter != 0) left.append("-").append(1, option.letter).append(", ");
    left.append(option.name);
    if (!option.IsFlag()) left.append(" ").append(option.value);
    std::string help(option.help);
    if (option.required) help.append(" (required)");
    AppendEntry(out, left, help);
  }
}

std::string_view FirstWord(std::string_view name) { return name.substr(0, name.find(' ')); }

}  // namespace

std::string GeneralHelp() {
  std::vector<std::string> groups;  // "audit log|checkpoint|prove"
  std::string_view last;
  for (const CommandSpec* command : AllCommands()) {
    const std::string_view word = FirstWord(command->name);
    if (word != command->name && word == last) {
      groups.back().append("|").append(command->name.substr(word.size() + 1));
    } else {
      groups.emplace_back(command->name);
    }
    last = word;
  }
  std::string out(kJourneys);
  std::string line = " ";
  for (const std::string& group : groups) {
    const bool is_last = &group == &groups.back();
    if (line.size() + group.size() + 2 > kWidth) {
      out.append(line).append("\n");
      line.assign(1, ' ');  // GCC 12 warns of the other form under -O2
    }
    line.append(" ").append(group).append(is_last ? "" : ",");
  }
  out.append(line).append("\n\nOptions of every command\n");
  AppendOptions(out, GlobalOptionSpecs());
  out.append("\nExamples and options of one command: keyescrow COMMAND --help\n");
  return out;
}

std::string GroupHelp(std::string_view word) {
  std::string out;
  for (const CommandSpec* command : AllCommands()) {
    if (FirstWord(command->name) != word) continue;
    AppendEntry(out, std::string("keyescrow ").append(command->name), command->purpose);
  }
  out.append("\nExamples and options of one: keyescrow ").append(word).append(" COMMAND --help\n");
  return out;
}

std::string UsageLine(const CommandSpec& command) {
  std::string out = std::string("keyescrow ").append(command.name);
  for (const OptionSpec& argument : command.arguments) {
    out.append(argument.required ? " " : " [").append(argument.name);
    if (argument.repeatable) out.append("...");
    if (!argument.required) out.append("]");
  }
  for (const OptionSpec& option : command.options) {
    if (option.required) out.append(" ").append(option.name).append(" ").append(option.value);
  }
  return out.append(" [options]");
}

std::string CommandHelp(const CommandSpec& command) {
  std::string out;
  AppendWrapped(
      out, std::string("keyescrow ").append(command.name).append(": ").append(command.purpose), 0);
  out.append("\nusage: ").append(UsageLine(command)).append("\n\n");
  out.append("Examples\n");
  for (const Example& example : command.examples) {
    out.append("  # ").append(example.explains).append("\n  ").append(example.line).append("\n");
  }
  out.append("\n");
  if (!command.details.empty()) {
    AppendWrapped(out, command.details, 0);
    out.append("\n");
  }
  for (const OptionSpec& argument : command.arguments) {
    AppendEntry(out, argument.name,
                argument.has_words ? std::string(argument.help).append(": ").append(argument.value)
                                   : std::string(argument.help));
  }
  AppendOptions(out, command.options);
  if (!command.arguments.empty() || !command.options.empty()) out.append("\n");
  if (!command.password_options.empty() || !command.pin_options.empty()) {
    out.append("Secrets are asked for on the terminal, or come from\n");
    AppendOptions(out, command.password_options);
    AppendOptions(out, command.pin_options);
    out.append("\n");
  }
  out.append("Options of every command\n");
  AppendOptions(out, GlobalOptionSpecs());
  out.append("\nExit status\n");
  for (const std::uint8_t status : command.exits) {
    out.append(status < 10 ? "   " : "  ").append(std::to_string(status)).append("  ");
    out.append(ExitMeaning(status)).append("\n");
  }
  return out;
}

}  // namespace keyescrow::agent
