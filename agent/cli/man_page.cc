#include "agent/cli/man_page.h"

#include <algorithm>

#include "agent/cli/exit_code.h"

namespace keyescrow::agent {
namespace {

// Escaped writes text that roff takes for nothing but text: a backslash, a hyphen that is typed and
// not a place to break a line, an apostrophe that is one.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '\\': out.append("\\e"); break;
      case '-': out.append("\\-"); break;
      case '\'': out.append("\\(aq"); break;
      case '`': out.append("\\(ga"); break;
      case '^': out.append("\\(ha"); break;
      case '~': out.append("\\(ti"); break;
      default: out.push_back(c);
    }
  }
  return out;
}

// Word quotes an argument of a macro: what has blanks or quotation marks, or would be read as a
// macro or as punctuation, which mdoc sets apart.
std::string Word(std::string_view text) {
  std::string escaped = Escaped(text);
  for (std::size_t place = 0; (place = escaped.find('"', place)) != std::string::npos; place += 4) {
    escaped.replace(place, 1, "\\(dq");
  }
  return "\"\\&" + escaped + "\"";
}

void AppendLine(std::string& out, std::string_view line) {
  // A control character at the beginning would make it a macro.
  if (line.starts_with('.') || line.starts_with('\'')) out.append("\\&");
  out.append(Escaped(line)).append("\n");
}

// AppendProse writes sentences, each on a line of its own, paragraphs apart.
void AppendProse(std::string& out, std::string_view text) {
  std::size_t begin = 0;
  for (std::size_t index = 0; index <= text.size(); ++index) {
    const bool paragraph_ends = index == text.size() || text[index] == '\n';
    const bool sentence_ends =
        !paragraph_ends && text[index] == ' ' && index > begin + 1 && text[index - 1] == '.';
    if (!paragraph_ends && !sentence_ends) continue;
    if (index > begin) AppendLine(out, text.substr(begin, index - begin));
    const bool more = index < text.size();
    if (paragraph_ends && more && index > begin) out.append(".Pp\n");
    begin = index + 1;
  }
}

// Sentence makes one of a line of the table, which has a small letter and no full stop.
std::string Sentence(std::string_view text) {
  std::string out(text);
  const auto is_small = [](char c) { return c >= 'a' && c <= 'z'; };
  const bool is_word = out.size() > 1 && is_small(out[0]) && (is_small(out[1]) || out[1] == ' ');
  if (is_word) out[0] = static_cast<char>(out[0] - 'a' + 'A');
  return out + ".";
}

void AppendOptions(std::string& out, std::span<const OptionSpec> options) {
  for (const OptionSpec& option : options) {
    out.append(".It ");
    if (option.letter != 0) out.append("Fl ").append(1, option.letter).append(" , ");
    out.append("Fl ").append(Escaped(option.name.substr(1)));
    if (!option.IsFlag()) out.append(" Ar ").append(Word(option.value));
    out.append("\n");
    std::string help(option.help);
    if (option.required) help.append("; required");
    if (option.repeatable) help.append("; may be given again");
    AppendProse(out, Sentence(help));
  }
}

void AppendSynopsis(std::string& out, const CommandSpec& command) {
  out.append(".Sh SYNOPSIS\n.Nm keyescrow\n.Cm ").append(Escaped(command.name)).append("\n");
  for (const OptionSpec& argument : command.arguments) {
    const std::string name = "Ar " + Word(argument.has_words ? argument.value : argument.name);
    out.append(argument.required ? "." : ".Op ").append(name);
    if (argument.repeatable) out.append(" ...");
    out.append("\n");
  }
  for (const OptionSpec& option : command.options) {
    if (!option.required) continue;
    out.append(".Fl ").append(Escaped(option.name.substr(1)));
    out.append(" Ar ").append(Word(option.value)).append("\n");
  }
  out.append(".Op Ar options\n");
}

void AppendDescription(std::string& out, const CommandSpec& command) {
  out.append(".Sh DESCRIPTION\n");
  AppendProse(out, Sentence(command.purpose));
  if (!command.details.empty()) {
    out.append(".Pp\n");
    AppendProse(out, command.details);
  }
  if (command.arguments.empty()) return;
  out.append(".Bl -tag -width Ds\n");
  for (const OptionSpec& argument : command.arguments) {
    out.append(".It Ar ").append(Word(argument.has_words ? argument.value : argument.name));
    out.append("\n");
    AppendProse(out, Sentence(argument.help));
  }
  out.append(".El\n");
}

void AppendExamples(std::string& out, const CommandSpec& command) {
  out.append(".Sh EXAMPLES\n");
  bool first = true;
  for (const Example& example : command.examples) {
    if (!first) out.append(".Pp\n");
    first = false;
    std::string explains = Sentence(example.explains);
    explains.back() = ':';
    AppendLine(out, explains);
    out.append(".Bd -literal -offset indent\n");
    AppendLine(out, example.line);
    out.append(".Ed\n");
  }
}

// AppendSeeAlso names the overview, the commands beside this one, and what they stand on.
void AppendSeeAlso(std::string& out, const CommandSpec& command) {
  std::vector<std::string> names = {"keyescrow"};
  const std::string_view group = command.name.substr(0, command.name.find(' '));
  for (const CommandSpec* other : AllCommands()) {
    const bool same_group = group != command.name && other->name.starts_with(group) &&
                            other->name.substr(group.size()).starts_with(' ');
    if (other != &command && same_group) names.push_back(ManPageName(*other));
  }
  std::sort(names.begin(), names.end());
  out.append(".Sh SEE ALSO\n");
  for (const std::string& name : names) {
    out.append(".Xr ").append(Escaped(name)).append(" 1 ,\n");
  }
  out.append(
      ".Xr keyescrow\\-agent.toml 5 ,\n.Xr keyescrow\\-envelope 5 ,\n"
      ".Xr keyescrow\\-policy 5 ,\n.Xr keyescrow 7\n");
}

}  // namespace

std::string ManPageName(const CommandSpec& command) {
  std::string name = "keyescrow-" + std::string(command.name);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string ManPage(const CommandSpec& command, std::string_view date) {
  const std::string name = ManPageName(command);
  std::string title = name;
  for (char& c : title) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  std::string out = ".\\\" Made from the table of commands; what it says is what --help says.\n";
  out.append(".Dd ").append(date).append("\n.Dt ").append(Escaped(title)).append(" 1\n.Os\n");
  out.append(".Sh NAME\n.Nm ").append(Escaped(name)).append("\n.Nd ");
  out.append(Escaped(command.purpose)).append("\n");
  AppendSynopsis(out, command);
  AppendDescription(out, command);
  out.append(".Sh OPTIONS\n.Bl -tag -width Ds\n");
  AppendOptions(out, command.options);
  AppendOptions(out, command.password_options);
  AppendOptions(out, command.pin_options);
  out.append(".It Fl h , Fl \\-help\nShow this by example.\n.El\n.Pp\n");
  out.append("Every command takes these as well:\n.Bl -tag -width Ds\n");
  AppendOptions(out, GlobalOptionSpecs());
  out.append(".El\n.Sh EXIT STATUS\n.Bl -tag -width Ds\n");
  for (const std::uint8_t status : command.exits) {
    out.append(".It ").append(std::to_string(status)).append("\n");
    AppendProse(out, Sentence(ExitMeaning(status)));
  }
  out.append(".El\n");
  AppendExamples(out, command);
  AppendSeeAlso(out, command);
  return out;
}

}  // namespace keyescrow::agent
