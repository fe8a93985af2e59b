#include "agent/cli/command_table.h"

#include <charconv>

#include "agent/cli/commands/specs.h"
#include "agent/cli/terminal_text.h"
#include "envelope/base/base64url.h"
#include "envelope/base/bytes.h"

namespace keyescrow::agent {
namespace {

using G = GlobalOptions;

constexpr OptionSpec kGlobalOptions[] = {
    Flag<&G::json>("--json", "one JSON document instead of text, on errors too"),
    Option<&G::config>("--config", "FILE", "the configuration; also KEYESCROW_CONFIG").File(),
    Option<&G::state>("--state", "DIR", "the folder of the state; also KEYESCROW_STATE").Folder(),
    Option<&G::tpm>("--tpm", "TCTI|none", "the TPM to use, e.g. device:/dev/tpmrm0, or none"),
    Flag<&G::quiet>("--quiet", "no notes and no progress"),
    Flag<&G::trace>("--trace", "tell each step on standard error; secrets are redacted"),
    Flag<&G::no_input>("--no-input", "fail rather than ask"),
    Option<&G::color>("--color", "auto|always|never", "colours; auto heeds NO_COLOR"),
    Flag<&G::yes>("--yes", "take a confirmation as given"),
};

// One a line, so that two changes rarely meet.
// clang-format off
constexpr const CommandSpec* kCommands[] = {
    &kInitCommand,
    &kDoctorCommand,
    &kTokenAddCommand,
    &kTokenListCommand,
    &kTokenShowCommand,
    &kTokenKeygenCommand,
    &kTokenRemoveCommand,
    &kRecoveryKeyCreateCommand,
    &kRecoveryKeyListCommand,
    &kRecoveryKeyShowCommand,
    &kRecoveryKeyExportCommand,
    &kRecoveryKeyImportCommand,
    &kRecoveryKeyPasswordCommand,
    &kRecoveryKeyRetireCommand,
    &kKeyAddCommand,
    &kKeyListCommand,
    &kKeyRemoveCommand,
    &kBackupCommand,
    &kRestoreCommand,
    &kRotateCommand,
    &kDestroyCommand,
    &kDrillCommand,
    &kVerifyCommand,
    &kPathListCommand,
    &kPathAddCommand,
    &kPathReplaceCommand,
    &kPathRemoveCommand,
    &kPasswordChangeCommand,
    &kAdoptCommand,
    &kExportCommand,
    &kImportCommand,
    &kImportEventCommand,
    &kRecoverySheetCommand,
    &kListCommand,
    &kShowCommand,
    &kStatusCommand,
    &kGateCommand,
    &kWizardCommand,
    &kWhatIfCommand,
    &kAgentKeyShowCommand,
    &kAgentKeyExportCommand,
    &kTrustAddCommand,
    &kTrustListCommand,
    &kTrustRemoveCommand,
    &kPolicyShowCommand,
    &kPolicyCheckCommand,
    &kPolicySignCommand,
    &kPolicySetCommand,
    &kAuditLogCommand,
    &kAuditCheckpointCommand,
    &kAuditProveCommand,
    &kAuditAnchorCommand,
    &kAuditReportCommand,
    &kAuditExportCommand,
    &kAuditSampleCommand,
    &kCompletionCommand,
    &kVersionCommand,
};
// clang-format on

constexpr std::string_view kLaterCommands[] = {
    "daemon", "sync", "host", "token probe", "agent-key rotate",
};

Error BadValue(const OptionSpec& spec, std::string_view value, std::string_view wanted) {
  return Error(
      ErrorCode::kUsage, Action::kFixInput,
      std::string(spec.name) + ": '" + EscapeForTerminal(value) + "' is not " + std::string(wanted),
      "give " + std::string(wanted));
}

template <typename Number>
Status StoreNumber(const OptionSpec& spec, std::optional<Number>& field, std::string_view value) {
  Number number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    return BadValue(spec, value, "a decimal number");
  }
  field = number;
  return Ok();
}

}  // namespace

std::span<const CommandSpec* const> AllCommands() { return kCommands; }
std::span<const OptionSpec> GlobalOptionSpecs() { return kGlobalOptions; }
std::span<const std::string_view> LaterCommands() { return kLaterCommands; }

Status StoreField(const OptionSpec& /*spec*/, bool& field, std::string_view /*value*/) {
  field = true;
  return Ok();
}

Status StoreField(const OptionSpec& spec, std::string& field, std::string_view value) {
  // A slip of the hand would else read as a signer that is not trusted.
  if (spec.IsThumbprintOption()) {
    const auto bytes = DecodeBase64Url(value);
    if (!bytes || bytes->size() != sizeof(Bytes32)) {
      return BadValue(spec, value,
                      "an agent's thumbprint: 43 characters of base64url, as 'init' and "
                      "'agent-key show' print it");
    }
  }
  field = value;
  return Ok();
}

Status StoreField(const OptionSpec& /*spec*/, std::vector<std::string>& field,
                  std::string_view value) {
  field.emplace_back(value);
  return Ok();
}

Status StoreField(const OptionSpec& spec, std::optional<std::uint32_t>& field,
                  std::string_view value) {
  return StoreNumber(spec, field, value);
}

Status StoreField(const OptionSpec& spec, std::optional<std::uint64_t>& field,
                  std::string_view value) {
  return StoreNumber(spec, field, value);
}

Result<std::size_t> WordIndex(const OptionSpec& spec, std::string_view value) {
  std::string_view rest = spec.value;
  for (std::size_t index = 0;; ++index) {
    const std::size_t bar = rest.find('|');
    if (rest.substr(0, bar) == value) return index;
    if (bar == std::string_view::npos) break;
    rest.remove_prefix(bar + 1);
  }
  return BadValue(spec, value, "one of " + std::string(spec.value));
}

Error UsageError(std::string message, std::string_view help) {
  return Error(ErrorCode::kUsage, Action::kFixInput, std::move(message),
               "see '" + std::string(help) + "'");
}

}  // namespace keyescrow::agent
