// The table of commands: the one description from which the parser, the help, the completions and
// the test of the man page work. Rows are constants: nothing runs before main.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "agent/cli/options.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct OptionTarget {
  GlobalOptions& global;
  CommandOptions& command;
};

struct OptionSpec;
using StoreFunction = Status (*)(const OptionSpec& spec, OptionTarget target,
                                 std::string_view value);

enum class Completes : std::uint8_t { kNothing, kFile, kFolder };

// OptionSpec: one option. The setters chain, for the tables.
struct OptionSpec {
  std::string_view name;   // "--path"
  std::string_view value;  // what its value is called, or the words it may be: "a|b"; "": a flag
  std::string_view help;   // one sentence, lower case, without a full stop
  StoreFunction store = nullptr;
  bool repeatable = false;
  bool required = false;
  bool verbatim = false;   // words of another program: empty ones too
  bool has_words = false;  // `value` lists the words that are accepted
  char letter = 0;         // 'o' for -o
  Completes completes = Completes::kNothing;

  constexpr bool IsFlag() const { return value.empty(); }
  // An argument that is called so may name a file as well, or what is to be removed.
  constexpr bool IsThumbprintOption() const {
    return value == "THUMBPRINT" && name.starts_with("--");
  }
  constexpr OptionSpec Required() const {
    OptionSpec copy = *this;
    copy.required = true;
    return copy;
  }
  constexpr OptionSpec Verbatim() const {
    OptionSpec copy = *this;
    copy.verbatim = true;
    return copy;
  }
  constexpr OptionSpec Letter(char c) const {
    OptionSpec copy = *this;
    copy.letter = c;
    return copy;
  }
  constexpr OptionSpec File() const {
    OptionSpec copy = *this;
    copy.completes = Completes::kFile;
    return copy;
  }
  constexpr OptionSpec Folder() const {
    OptionSpec copy = *this;
    copy.completes = Completes::kFolder;
    return copy;
  }
};

struct Example {
  std::string_view line;  // a whole command line
  std::string_view explains;
};

struct CommandSpec {
  std::string_view name;                       // "restore", "token add"
  std::string_view purpose;                    // one line, lower case
  std::span<const OptionSpec> arguments = {};  // positional; `name` is what it is called
  std::span<const OptionSpec> options = {};
  std::span<const OptionSpec> password_options = {};
  std::span<const OptionSpec> pin_options = {};
  std::string_view details = {};  // a paragraph or more, may be ""
  std::span<const Example> examples = {};
  std::span<const std::uint8_t> exits = {};  // the exit statuses that its help lists
  CommandOptions (*make)() = nullptr;        // its options, nothing set
  Status (*check)(const CommandOptions& options) = nullptr;  // rules between options
};

// AllCommands in the order of the journeys.
std::span<const CommandSpec* const> AllCommands();
std::span<const OptionSpec> GlobalOptionSpecs();
// LaterCommands: words that a later version knows ("drill", "token probe").
std::span<const std::string_view> LaterCommands();

// ---- for the tables

// StoreField puts `value` into a field; a list grows. Errors: kUsage, naming the option.
Status StoreField(const OptionSpec& spec, bool& field, std::string_view value);
Status StoreField(const OptionSpec& spec, std::string& field, std::string_view value);
Status StoreField(const OptionSpec& spec, std::vector<std::string>& field, std::string_view value);
Status StoreField(const OptionSpec& spec, std::optional<std::uint32_t>& field,
                  std::string_view value);
Status StoreField(const OptionSpec& spec, std::optional<std::uint64_t>& field,
                  std::string_view value);
// WordIndex returns which of the words of spec.value `value` is.
Result<std::size_t> WordIndex(const OptionSpec& spec, std::string_view value);

template <typename Enum>
requires std::is_enum_v<Enum> Status StoreField(const OptionSpec& spec, Enum& field,
                                                std::string_view value) {
  ASSIGN_OR_RETURN(const std::size_t index, WordIndex(spec, value));
  field = static_cast<Enum>(index);
  return Ok();
}
template <typename Enum>
requires std::is_enum_v<Enum> Status StoreField(const OptionSpec& spec, std::optional<Enum>& field,
                                                std::string_view value) {
  return StoreField(spec, field.emplace(), value);
}

template <typename Struct, typename Field>
Struct StructOfMember(Field Struct::*);
template <typename Struct, typename Field>
Field FieldOfMember(Field Struct::*);

template <typename Field>
inline constexpr bool kIsEnum = std::is_enum_v<Field>;
template <typename Field>
inline constexpr bool kIsEnum<std::optional<Field>> = std::is_enum_v<Field>;

// StoreMember<&O::to> stores into a member of the command's options or of the global ones;
// StoreMember<&O::secrets, &SecretOptions::pin_fd> into a member's member.
template <auto First, auto Second = nullptr>
Status StoreMember(const OptionSpec& spec, OptionTarget target, std::string_view value) {
  using Struct = decltype(StructOfMember(First));
  if constexpr (std::is_same_v<Struct, GlobalOptions>) {
    return StoreField(spec, target.global.*First, value);
  } else {
    auto& field = std::get<Struct>(target.command).*First;
    if constexpr (std::is_null_pointer_v<decltype(Second)>) {
      return StoreField(spec, field, value);
    } else {
      return StoreField(spec, field.*Second, value);
    }
  }
}

template <auto First, auto Second = nullptr>
constexpr OptionSpec Option(std::string_view name, std::string_view value, std::string_view help) {
  OptionSpec spec{.name = name, .value = value, .help = help, .store = &StoreMember<First, Second>};
  if constexpr (std::is_null_pointer_v<decltype(Second)>) {
    using Field = decltype(FieldOfMember(First));
    spec.repeatable = std::is_same_v<Field, std::vector<std::string>>;
    spec.has_words = kIsEnum<Field>;
  } else {
    using Field = decltype(FieldOfMember(Second));
    spec.repeatable = std::is_same_v<Field, std::vector<std::string>>;
  }
  return spec;
}

// Flag is an option without a value.
template <auto Member>
constexpr OptionSpec Flag(std::string_view name, std::string_view help) {
  return Option<Member>(name, "", help);
}

// Argument is positional: required, or one that may be left out; of a list, any number.
template <auto Member>
constexpr OptionSpec Argument(std::string_view name, std::string_view help) {
  return Option<Member>(name, name, help).Required();
}
template <auto Member>
constexpr OptionSpec OptionalArgument(std::string_view name, std::string_view help) {
  return Option<Member>(name, name, help);
}

// The options of secrets, for a command whose options have a member `secrets`.
template <auto Secrets>
inline constexpr OptionSpec kPasswordOptions[] = {
    Option<Secrets, &SecretOptions::password_files>(
        "--password-file", "[PATH-ID=]FILE",
        "read the password from the first line of FILE, or of standard input for '-'; with "
        "PATH-ID, for that path alone")
        .File(),
    Option<Secrets, &SecretOptions::password_fd>("--password-fd", "N",
                                                 "read the password from the open descriptor N"),
};
template <auto Secrets>
inline constexpr OptionSpec kNewPasswordOptions[] = {
    kPasswordOptions<Secrets>[0],
    kPasswordOptions<Secrets>[1],
    Option<Secrets, &SecretOptions::new_password_files>(
        "--new-password-file", "[PATH-ID=]FILE",
        "the same, for paths that are being made; comes before --password-file")
        .File(),
};
template <auto Secrets>
inline constexpr OptionSpec kPinOptions[] = {
    Option<Secrets, &SecretOptions::pin_files>(
        "--pin-file", "[TOKEN=]FILE",
        "read the token's PIN from the first line of FILE; with TOKEN, for that token alone")
        .File(),
    Option<Secrets, &SecretOptions::pin_fd>("--pin-fd", "N",
                                            "read the token's PIN from the open descriptor N"),
};

// MakeOptions<O> is CommandSpec::make.
template <typename Struct>
CommandOptions MakeOptions() {
  return Struct{};
}

}  // namespace keyescrow::agent
