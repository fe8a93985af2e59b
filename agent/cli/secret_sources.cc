#include "agent/cli/secret_sources.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "agent/key_locations/secret_file.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kPasswordRemedy =
    "give --password-file FILE or --password-fd N, or run on a terminal without --no-input";
constexpr std::string_view kNewPasswordRemedy =
    "give --new-password-file FILE, or run on a terminal without --no-input";
constexpr std::string_view kPinRemedy =
    "give --pin-file FILE or --pin-fd N, or run on a terminal without --no-input";

Error Usage(std::string message, std::string hint) {
  return Error(ErrorCode::kUsage, Action::kFixInput, std::move(message), std::move(hint));
}

bool IsId(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

struct Split {
  std::string id;
  std::string file;
};

// SplitSource splits "[ID=]FILE".
Split SplitSource(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || !IsId(std::string_view(text).substr(0, equals))) {
    return {"", text};
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

Result<SecretBytes> Copy(const SecretBytes& secret) { return SecretBytes::CopyOf(secret.Expose()); }

// Readers keeps what was named on the command line, to refuse what would be read twice.
class Readers {
 public:
  explicit Readers(std::string_view stdin_user) : stdin_user_(stdin_user) {}

  // Two tokens may have one PIN, and are named each; a password serves every path as it is.
  Status AddFile(const std::string& option, const std::string& file, bool is_named_pin) {
    if (file.empty()) return Usage(option + " names no file", "write " + option + " FILE");
    if (file == "-") return AddStdin(option + " -");
    const auto [known, is_new] = files_.emplace(file, is_named_pin);
    if (is_new || (is_named_pin && known->second)) return Ok();
    return Usage(
        "the file '" + file + "' is named twice for secrets",
        option == "--pin-file"
            ? "name a file of its own for each token's PIN, or name each token: --pin-file "
              "TOKEN=FILE"
            : "name it once: one password serves every path that has none of its own");
  }
  Status AddFd(const std::string& option, int fd) {
    if (fd == STDIN_FILENO) return AddStdin(option + " 0");
    if (fds_.insert(fd).second) return Ok();
    return Usage("descriptor " + std::to_string(fd) + " is named twice for secrets",
                 "open a descriptor for each secret");
  }

 private:
  Status AddStdin(const std::string& user) {
    if (stdin_user_.empty()) {
      stdin_user_ = user;
      return Ok();
    }
    return Usage("standard input is named twice: by " + stdin_user_ + " and by " + user,
                 "use a file or another descriptor for one of them");
  }

  std::string stdin_user_;
  std::map<std::string, bool> files_;  // whether it is a named token's PIN
  std::set<int> fds_;
};

}  // namespace

Result<SecretSources> SecretSources::Create(const SecretOptions& options, SecretPrompt& prompt,
                                            std::string_view stdin_user) {
  SecretSources sources(prompt);
  Readers readers(stdin_user);
  const auto add_files = [&readers](std::vector<Source>& list, const std::string& option,
                                    const std::vector<std::string>& files) -> Status {
    for (const std::string& text : files) {
      Split split = SplitSource(text);
      RETURN_IF_ERROR(
          readers.AddFile(option, split.file, option == "--pin-file" && !split.id.empty()));
      if (std::ranges::find(list, split.id, &Source::id) != list.end()) {
        const char* const any = option == "--pin-file" ? "no token by name" : "every path";
        return Usage(
            option + " is given twice for " + (split.id.empty() ? any : "'" + split.id + "'"),
            "give it once, or once for each id: " + option + " ID=FILE");
      }
      list.push_back(Source{.option = option, .id = split.id, .file = split.file});
    }
    return Ok();
  };
  const auto add_fd = [&readers](std::vector<Source>& list, const std::string& option,
                                 const std::optional<std::uint32_t>& number) -> Status {
    if (!number) return Ok();
    if (*number > 1U << 20) return Usage(option + ": there is no such descriptor", "check N");
    const int fd = static_cast<int>(*number);
    RETURN_IF_ERROR(readers.AddFd(option, fd));
    if (std::ranges::find(list, "", &Source::id) != list.end()) {
      return Usage(option + " and a file without an id exclude each other",
                   "give one of them, or name the id: ID=FILE");
    }
    list.push_back(Source{.option = option, .fd = fd});
    return Ok();
  };
  RETURN_IF_ERROR(add_files(sources.passwords_, "--password-file", options.password_files));
  RETURN_IF_ERROR(add_fd(sources.passwords_, "--password-fd", options.password_fd));
  RETURN_IF_ERROR(
      add_files(sources.new_passwords_, "--new-password-file", options.new_password_files));
  RETURN_IF_ERROR(add_files(sources.pins_, "--pin-file", options.pin_files));
  RETURN_IF_ERROR(add_fd(sources.pins_, "--pin-fd", options.pin_fd));
  AddCredential(sources.passwords_, "password");
  AddCredential(sources.pins_, "pin");
  return sources;
}

// A credential comes after the command line, and only where systemd passed one.
void SecretSources::AddCredential(std::vector<Source>& sources, const char* name) {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (folder == nullptr || *folder == '\0') return;
  if (std::ranges::find(sources, "", &Source::id) != sources.end()) return;
  std::string file = std::string(folder) + "/" + name;
  if (access(file.c_str(), F_OK) != 0) return;
  sources.push_back(Source{.option = "systemd credential", .file = std::move(file)});
}

SecretSources::Source* SecretSources::Find(std::vector<Source>& sources, std::string_view id) {
  auto found = std::ranges::find(sources, id, &Source::id);
  if (found == sources.end()) found = std::ranges::find(sources, "", &Source::id);
  return found == sources.end() ? nullptr : &*found;
}

Result<SecretBytes> SecretSources::Read(Source& source) {
  if (!source.secret) {
    auto secret = source.file.empty() ? ReadSecretFd(source.fd) : ReadSecretFile(source.file);
    if (!secret) return std::move(secret).error().WithContext(source.option);
    source.secret = std::move(*secret);
  }
  return Copy(*source.secret);
}

Result<SecretBytes> SecretSources::Typed(std::string_view path_id, std::string_view purpose,
                                         bool is_new, std::string_view remedy) {
  std::optional<SecretBytes>& kept = is_new ? typed_new_ : typed_;
  if (!kept) {
    std::string label = is_new ? "new password" : "password";
    if (!path_id.empty()) label.append(" of path '").append(path_id).append("'");
    if (!purpose.empty()) label.append(" ").append(purpose);
    auto typed = is_new ? prompt_->AskNew(label, remedy) : prompt_->Ask(label, remedy);
    if (!typed) return std::move(typed).error();
    kept = std::move(*typed);
  }
  return Copy(*kept);
}

Result<SecretBytes> SecretSources::Password(std::string_view path_id, std::string_view purpose) {
  // What made a path in this command opens it.
  if (made_.contains(path_id)) return Read(*Find(new_passwords_, path_id));
  if (Source* source = Find(passwords_, path_id)) return Read(*source);
  // What was typed twice a moment ago, to make this path, opens it.
  if (!typed_ && typed_new_) return Copy(*typed_new_);
  return Typed(path_id, purpose, false, kPasswordRemedy);
}

Result<SecretBytes> SecretSources::NewPassword(std::string_view path_id, std::string_view purpose,
                                               NewPasswordFrom from) {
  if (Source* source = Find(new_passwords_, path_id)) {
    made_.emplace(path_id);
    return Read(*source);
  }
  if (from == NewPasswordFrom::kNewSourcesOnly) {
    return Typed(path_id, purpose, true, kNewPasswordRemedy);
  }
  if (Source* source = Find(passwords_, path_id)) return Read(*source);
  return Typed(path_id, purpose, true, kPasswordRemedy);
}

bool SecretSources::HasPasswordFor(std::string_view path_id) const {
  return !path_id.empty() &&
         std::ranges::find(passwords_, path_id, &Source::id) != passwords_.end();
}

bool SecretSources::ForgetTyped() {
  const bool any = typed_.has_value() || typed_new_.has_value();
  typed_.reset();
  typed_new_.reset();
  return any;
}

std::string SecretSources::EndsWithReturn(bool is_pin) const {
  const auto in = [](const std::vector<Source>& sources) -> std::string {
    for (const Source& source : sources) {
      if (!source.secret || source.secret->empty()) continue;
      if (source.secret->Expose().back() != '\r') continue;
      return source.file.empty() ? "descriptor " + std::to_string(source.fd) : source.file;
    }
    return "";
  };
  if (is_pin) return in(pins_).empty() ? in(pin_sources_) : in(pins_);
  return in(passwords_).empty() ? in(new_passwords_) : in(passwords_);
}

bool SecretSources::NewPasswordIsTyped() const {
  if (typed_ || typed_new_) return true;
  const auto serves_any = [](const std::vector<Source>& sources) {
    return std::ranges::find(sources, "", &Source::id) != sources.end();
  };
  return CanAsk() && !serves_any(new_passwords_) && !serves_any(passwords_);
}

bool SecretSources::HasPin(std::string_view token_name) const {
  const auto serves = [&](const Source& source) {
    if (source.id == token_name && !token_name.empty()) return true;
    // A token that had no name yet may be this one: keygen asks before it registers.
    return source.id.empty() && (source.user_name.empty() || source.user_name == token_name);
  };
  return CanAsk() || std::ranges::any_of(pins_, serves) ||
         std::ranges::any_of(pin_sources_, serves);
}

Result<std::string> SecretSources::AddPinSource(std::string_view token_name,
                                                std::string_view pin_source) {
  std::string_view path = pin_source;
  if (path.starts_with("file:")) path.remove_prefix(5);
  if (path.starts_with("//")) {
    path.remove_prefix(2);
    if (path.starts_with("localhost/")) path.remove_prefix(9);
  }
  if (!path.starts_with('/')) {
    return Error(ErrorCode::kInvalidUri, Action::kFixInput,
                 "the pin-source of token '" + std::string(token_name) +
                     "' is not the absolute path of a file",
                 "register the token with pin-source=file:/PATH, or give --pin-file");
  }
  pin_sources_.push_back(
      Source{.option = "pin-source", .id = std::string(token_name), .file = std::string(path)});
  return std::string(path);
}

bool SecretSources::HasNamelessPin() const {
  return std::ranges::any_of(pins_, [](const Source& source) {
    return source.id.empty() && source.option != "systemd credential";
  });
}

Status SecretSources::CheckPins(const std::set<std::string, std::less<>>& tokens) const {
  std::string without;
  std::size_t num_without = 0;
  std::string example;
  for (const std::string& token : tokens) {
    if (std::ranges::find(pins_, token, &Source::id) != pins_.end()) continue;
    if (num_without++ == 0) example = token;
    without += (without.empty() ? "" : ", ") + token;
  }
  if (num_without < 2 || !HasNamelessPin()) return Ok();
  return Usage("the PIN that was given names no token, and could be sent to each of " + without +
                   ": a PIN that is sent to the wrong token uses one of its tries",
               "name the token: --pin-file " + example + "=FILE; nothing was sent");
}

Result<SecretBytes> SecretSources::FindPin(const envelope::PinRequest& request,
                                           const std::string& token, const std::string& identity) {
  const auto read_for = [&](Source& source) -> Result<SecretBytes> {
    if (source.user.empty()) source.user = identity;
    if (source.user_name.empty()) source.user_name = request.token_name;
    return Read(source);
  };
  const auto named = std::ranges::find(pins_, token, &Source::id);
  if (!token.empty() && named != pins_.end()) return read_for(*named);
  const auto general = std::ranges::find(pins_, "", &Source::id);
  const bool general_is_free =
      general != pins_.end() &&
      (general->user.empty() ||
       (general->user == identity &&
        (general->user_name.empty() || general->user_name == request.token_name)));
  const bool from_options = general != pins_.end() && general->option != "systemd credential";
  if (general_is_free && from_options) return read_for(*general);
  const auto own = std::ranges::find(pin_sources_, request.token_name, &Source::id);
  if (own != pin_sources_.end()) return read_for(*own);
  if (general_is_free) return read_for(*general);
  std::string label = "PIN of token '" + token + "'";
  if (request.final_try) label += " (the last try before it locks)";
  const std::string remedy =
      general != pins_.end() ? "that PIN serves one token; give --pin-file " + token + "=FILE too"
                             : std::string(kPinRemedy);
  return prompt_->Ask(label, remedy);
}

namespace {

// RefuseEmptyPin gives an empty file or answer the PIN's own error: nothing was sent to the token.
Error RefuseEmptyPin(Error error, const std::string& token) {
  if (error.code() != ErrorCode::kSecretSourceUnreadable ||
      !error.message().ends_with("is empty")) {
    return error;
  }
  return Error(ErrorCode::kPinEmpty, Action::kReauthenticate,
               "the PIN of token '" + token + "' is empty; nothing was sent",
               "type the token's user PIN; an empty one would use up a try");
}

Error NotSentAgain(const std::string& token) {
  return Error(ErrorCode::kWrongPin, Action::kReauthenticate,
               "the PIN that was given for token '" + token + "' was wrong, and is not sent again",
               "run the command again with the right PIN: each wrong one uses a try");
}

}  // namespace

Result<SecretBytes> SecretSources::AskPin(const envelope::PinRequest& request) {
  std::string token = request.token_name;
  if (token.empty()) token = request.token_label;
  if (token.empty()) token = request.token_serial;
  const std::string identity =
      request.token_serial.empty() ? token : request.token_label + "\n" + request.token_serial;
  const auto was_wrong = [&request](const PinUse& use) {
    return (request.count_low && !use.count_low) || (request.final_try && !use.final_try);
  };
  // What a token is called here decides: label and serial number are its own claim, by which one
  // that lies would be given another's PIN. It has no name before it is registered.
  const std::string end = "\n" + identity;
  const std::string key = request.token_name + end;
  auto used = used_pins_.find(key);
  if (used == used_pins_.end() && used_pins_.contains(end)) {
    auto nameless = used_pins_.extract(end);
    nameless.key() = key;
    used = used_pins_.insert(std::move(nameless)).position;
    const auto general = std::ranges::find(pins_, identity, &Source::user);
    if (general != pins_.end()) general->user_name = request.token_name;
  }
  if (used != used_pins_.end()) {
    if (was_wrong(used->second)) return NotSentAgain(token);
    return Copy(used->second.pin);
  }
  if (request.count_low && !request.final_try) {
    prompt_->Tell("warning: a wrong PIN was entered on token '" + token +
                  "' since the last right one");
  }
  auto found = FindPin(request, token, identity);
  if (!found) return RefuseEmptyPin(std::move(found).error(), token);
  SecretBytes pin = std::move(*found);
  // It may be one token under two names after all.
  for (const auto& [other, use] : used_pins_) {
    if (other.ends_with(end) && was_wrong(use) && use.pin.EqualsConstantTime(pin)) {
      return NotSentAgain(token);
    }
  }
  ASSIGN_OR_RETURN(SecretBytes kept, Copy(pin));
  used_pins_.emplace(key, PinUse{std::move(kept), request.count_low, request.final_try});
  return pin;
}

void SecretSources::OnReader(const envelope::PinRequest& request) {
  const std::string& name = request.token_name.empty() ? request.token_label : request.token_name;
  prompt_->Tell("enter the PIN of token '" + name + "' on the reader");
}

}  // namespace keyescrow::agent
