// SecretSources: where passwords and PINs come from, in this order: the file or descriptor named on
// the command line, a token's own RFC 7512 pin-source, systemd's credentials, the terminal.
//
// [ID=]FILE: the text before the first '=' is the id where it has only letters, digits, '.', '_'
// and '-'; a file whose name looks so is written ./a=b. "-" is the first line of standard input.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/options.h"
#include "agent/cli/secret_prompt.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/factor.h"

namespace keyescrow::agent {

class SecretSources : public envelope::PinProvider {
 public:
  // NewPasswordFrom: whether a new password may come from --password-file too. It may where no old
  // password is asked for in the same command (backup).
  enum class NewPasswordFrom : std::uint8_t { kAnySource, kNewSourcesOnly };

  // Create checks the options; nothing is read yet. `stdin_user` names what else reads standard
  // input ("--from -"), or is "". `prompt` outlives the sources.
  // Errors: kUsage where a file or descriptor is named twice, an id is given twice, or standard
  // input has two readers.
  static Result<SecretSources> Create(const SecretOptions& options, SecretPrompt& prompt,
                                      std::string_view stdin_user = "");

  // Password returns the password that opens `path_id`; `purpose` completes the question ("to
  // restore prod/db"). One password serves every path that has none of its own; it is read or
  // asked once. Blocks while a person types.
  // Errors: kSecretSourceMissing, kSecretSourceUnreadable, kSecretFileUnsafe, kMemoryLockLimit.
  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose);

  // NewPassword is Password for a path that is being made: --new-password-file comes first, and a
  // person types it twice.
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose,
                                  NewPasswordFrom from = NewPasswordFrom::kAnySource);

  // HasPasswordFor: --password-file names this path.
  bool HasPasswordFor(std::string_view path_id) const;

  // ForgetTyped drops the typed passwords, so that the next Password asks again. It returns false
  // where none was typed: asking again would give the same bytes.
  bool ForgetTyped();

  // EndsWithReturn returns a file or descriptor that was read for a password (or a PIN) and whose
  // line ends with a carriage return, "" where there is none: a file of another system opens
  // nothing.
  std::string EndsWithReturn(bool is_pin) const;

  // NewPasswordIsTyped: a new password was, or would be, typed at the terminal.
  bool NewPasswordIsTyped() const;

  // HasPin: AskPin would find a PIN for the token, or a person to ask.
  bool HasPin(std::string_view token_name) const;

  // CanAsk: a person can be asked.
  bool CanAsk() const { return prompt_->available(); }

  // AddPinSource registers the RFC 7512 pin-source (decoded: "file:/run/pin", or a path) of a
  // token and returns the file's path. Errors: kInvalidUri for another scheme, a relative path, or
  // a command ("|…").
  Result<std::string> AddPinSource(std::string_view token_name, std::string_view pin_source);

  // HasNamelessPin: --pin-file or --pin-fd gave a PIN that names no token.
  bool HasNamelessPin() const;
  // CheckPins refuses a PIN that names no token where more than one of `tokens` could ask for it.
  // Errors: kUsage.
  Status CheckPins(const std::set<std::string, std::less<>>& tokens) const;

  // AskPin returns the PIN of one token. A source that names no token serves the first token that
  // asks and no other: a PIN tried on the wrong token costs one of its tries. A PIN is given again
  // for the same token, unless the token's flags say that it was wrong.
  // Errors: as Password; kWrongPin where the same PIN would be sent a second time.
  Result<SecretBytes> AskPin(const envelope::PinRequest& request) override;
  void OnReader(const envelope::PinRequest& request) override;

 private:
  // A source, and its secret once it was read.
  struct Source {
    std::string option = {};  // "--password-file", for errors
    std::string id = {};      // path id or token; "" serves any
    std::string file = {};    // "" where it is a descriptor; "-" standard input
    int fd = -1;
    std::optional<SecretBytes> secret = {};
    // The token that a PIN source without a name serves: what it is, and its registered name, if
    // any.
    std::string user = {};
    std::string user_name = {};
  };
  struct PinUse {
    SecretBytes pin;
    bool count_low = false;
    bool final_try = false;
  };

  explicit SecretSources(SecretPrompt& prompt) : prompt_(&prompt) {}
  static Result<SecretBytes> Read(Source& source);
  static Source* Find(std::vector<Source>& sources, std::string_view id);
  static void AddCredential(std::vector<Source>& sources, const char* name);
  Result<SecretBytes> Typed(std::string_view path_id, std::string_view purpose, bool is_new,
                            std::string_view remedy);
  Result<SecretBytes> FindPin(const envelope::PinRequest& request, const std::string& token,
                              const std::string& identity);

  SecretPrompt* prompt_;
  std::vector<Source> passwords_;
  std::vector<Source> new_passwords_;
  std::vector<Source> pins_;
  std::vector<Source> pin_sources_;
  std::optional<SecretBytes> typed_;
  std::optional<SecretBytes> typed_new_;
  std::set<std::string, std::less<>> made_;  // paths that --new-password-file made
  std::map<std::string, PinUse, std::less<>> used_pins_;
};

}  // namespace keyescrow::agent
