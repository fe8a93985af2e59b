#include "agent/cli/session.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/usecases/anchoring.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/journald.h"

namespace keyescrow::agent {

Session::Session(const GlobalOptions& global, Terminal& terminal, Devices& devices)
    : global_(global),
      terminal_(terminal),
      prompt_(global.no_input, "/dev/tty", global.json),
      progress_(terminal) {
  const auto get_environment = [](const char* name) -> const char* { return std::getenv(name); };
  auto paths = ResolvePaths({global.config, global.state}, get_environment, geteuid());
  if (paths) {
    paths_ = std::move(*paths);
    auto config = LoadConfig(paths_.config_file);
    if (config) {
      config_ = std::move(*config);
    } else {
      config_error_ = std::move(config).error();
    }
  } else {
    config_error_ = std::move(paths).error();
  }
  environment_.state_dir =
      paths_.state_is_default && !config_.state.empty() ? config_.state : paths_.state_folder;
  environment_.tcti = global.tpm.empty() ? config_.tpm : global.tpm;
  environment_.config = &config_;
  const char* const journald = get_environment("KEYESCROW_JOURNALD_SOCKET");
  environment_.journald_socket = journald == nullptr ? std::string(kJournaldSocket) : journald;
  if (environment_.journald_socket == "none") environment_.journald_socket.clear();
  environment_.devices = &devices;
  environment_.clock = &SystemClock();
  environment_.random = &SystemRandom();
}

Status Session::RequireConfig() const {
  if (config_error_) return *config_error_;
  return Ok();
}

Status Session::MakeNamedConfig() {
  if (!paths_.config_is_named || config_.present) return Ok();
  constexpr std::string_view kText =
      "# The configuration of keyescrow on this host: keyescrow(7), agent.toml.\n"
      "# 'keyescrow key add NAME --source SOURCE' declares which keys must be escrowed.\n";
  RETURN_IF_ERROR(
      WriteFileDurably(paths_.config_file, AsBytes(kText), {.mode = 0644, .exclusive = true}));
  config_.present = true;
  return Ok();
}

Result<Agent*> Session::OpenAgent() {
  RETURN_IF_ERROR(RequireConfig());
  if (paths_.config_is_named && !config_.present) {
    return Error(ErrorCode::kConfiguration, Action::kFixInput,
                 "there is no configuration at " + paths_.config_file,
                 "correct --config or KEYESCROW_CONFIG, or make it: an empty file will do, and "
                 "'keyescrow init' and 'keyescrow key add' write one");
  }
  if (!agent_) {
    terminal_.Trace("configuration " + paths_.config_file + (config_.present ? "" : ", not there"));
    terminal_.Trace("state " + environment_.state_dir);
    ASSIGN_OR_RETURN(agent_, Agent::Open(environment_));
    WarnOfOtherMachine();
  }
  return agent_.get();
}

Result<Agent*> Session::OpenAgentFor(bool all_files) {
  if (!all_files) return OpenAgent();
  if (config_error_) {
    terminal_.Warn("going on without the configuration: " + config_error_->message());
  }
  if (!agent_) {
    // A state folder that is not known is one that is not there.
    Result<std::unique_ptr<Agent>> opened(nullptr);
    if (!environment_.state_dir.empty()) opened = Agent::Open(environment_);
    if (!opened && opened.error().code() != ErrorCode::kNotInitialized) {
      terminal_.Warn("going on without the state, which cannot be used: " +
                     opened.error().message());
    }
    if (opened) agent_ = std::move(*opened);
    WarnOfOtherMachine();
  }
  if (!agent_) devices().UseTpm(environment_.tcti, {});
  return agent_.get();
}

void Session::WarnOfOtherMachine() {
  if (agent_ && !agent_->warning().empty()) terminal_.Warn(agent_->warning());
}

Result<CliSecrets*> Session::OpenSecrets(const SecretOptions& options,
                                         std::string_view stdin_user) {
  ASSIGN_OR_RETURN(SecretSources sources, SecretSources::Create(options, prompt_, stdin_user));
  CliSecrets& secrets =
      secrets_.emplace(std::move(sources), global_.yes, prompt_, terminal_, progress_);
  if (agent_ == nullptr) return &secrets;
  // What the registrations say comes last: an option and a person come first. A store that does not
  // list them is met by whoever needs a token.
  const auto tokens = agent_->store().Tokens();
  for (std::size_t index = 0; tokens && index < tokens->size(); ++index) {
    const store::TokenRecord& token = (*tokens)[index];
    if (!token.pin_source.empty()) (void)secrets.AddPinSource(token.name, token.pin_source);
  }
  return &secrets;
}

Status Session::Confirm(std::string_view what, std::string_view expected) {
  if (global_.yes) return Ok();
  return ConfirmTyped(what, expected, "add --yes");
}

Status Session::ConfirmTyped(std::string_view what, std::string_view expected,
                             std::string_view remedy) {
  progress_.Pause();
  if (!prompt_.available()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 std::string(what) + " must be confirmed, and nobody can be asked",
                 std::string(remedy) + ", or run on a terminal without --no-input");
  }
  ASSIGN_OR_RETURN(
      const std::string answer,
      prompt_.AskLine("type \"" + EscapeForTerminal(expected) + "\" " + EscapeForTerminal(what),
                      std::string(remedy)));
  if (answer == expected) return Ok();
  return Error(ErrorCode::kUsage, Action::kFixInput, "it was not confirmed: nothing was done",
               "type it exactly as it is shown, or " + std::string(remedy));
}

Status Session::CheckStdoutSink(std::string_view option, bool is_key) const {
  if (terminal_.json()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 std::string(option) + " - and --json both want standard output",
                 "name a file, or leave --json out");
  }
  return is_key ? terminal_.CheckBinaryOutput() : Ok();
}

Result<int> Session::Finish(const Json& document, std::string_view text, int status,
                            bool stdout_taken) {
  progress_.Pause();
  if (stdout_taken) {
    while (!text.empty()) {
      const std::size_t end = text.find('\n');
      terminal_.Note(text.substr(0, end));
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    return status;
  }
  std::string told(text);
  if (terminal_.json()) {
    if (progress_.warnings().empty()) {
      told = DumpDocument(document);
    } else {
      Json with_warnings = document;
      with_warnings["warnings"] = ListJson(progress_.warnings());
      told = DumpDocument(with_warnings);
    }
  }
  const Status written = terminal_.WriteResult(told);
  if (written) return status;
  // Whoever closed standard output wants no words: what was done, and logged, is done.
  const bool is_closed = written.error().native_code() == EBADF;
  if (is_closed && agent_ != nullptr && agent_->journal().appended()) return status;
  return written.error();
}

int Session::AnchorIfDue(int status) {
  if (agent_ == nullptr || !agent_->journal().appended()) return status;
  const auto anchored = [&]() -> Status {
    ASSIGN_OR_RETURN(const bool due, AnchorIsDue(*agent_));
    if (!due) return Ok();
    progress_.Step("anchoring the log in the tpm");
    RETURN_IF_ERROR(AnchorLog(*agent_, {}));
    return Ok();
  }();
  progress_.Pause();
  // Another process anchors: that serves as well.
  if (anchored || anchored.error().code() == ErrorCode::kStoreBusy) return status;
  terminal_.Warn("the log could not be anchored in the tpm: " + anchored.error().message());
  terminal_.Note(anchored.error().hint());
  const bool is_off = anchored.error().code() == ErrorCode::kAnchorMismatch;
  return is_off && status == kExitDone ? kExitFindings : status;
}

namespace {

// WithReturn adds what a person does not see: a file of another system ends its line with CR and
// LF, and the CR counts. Nothing is stripped: where such a password was escrowed, it opens.
Error WithReturn(Error error, const CliSecrets& secrets) {
  const ErrorCode code = error.code();
  const bool is_pin = code == ErrorCode::kWrongPin || code == ErrorCode::kPinInvalid;
  const bool is_password = code == ErrorCode::kWrongPassword || code == ErrorCode::kTpmWrongAuth ||
                           code == ErrorCode::kEnvelopeUnwrap;
  if (!is_pin && !is_password) return error;
  const std::string file = secrets.EndsWithReturn(is_pin);
  if (file.empty()) return error;
  std::string hint = error.hint() + "; the line in " + file +
                     " ends with a carriage return (CR LF), which counts as a part of it";
  return std::move(error).WithHint(std::move(hint));
}

}  // namespace

int Session::Exit(const Result<int>& outcome) {
  progress_.Pause();
  if (outcome) return *outcome;
  terminal_.PrintError(secrets_ ? WithReturn(outcome.error(), *secrets_) : outcome.error());
  return ExitStatus(outcome.error());
}

bool MeansFile(const std::string& name_or_file) {
  if (LooksLikeFile(name_or_file)) return true;
  struct stat status {};
  return stat(name_or_file.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

}  // namespace keyescrow::agent
