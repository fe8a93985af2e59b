// The rows of the command table, each defined in commands/<word>_options.cc.
#pragma once

#include "agent/cli/command_table.h"

namespace keyescrow::agent {

extern const CommandSpec kInitCommand;
extern const CommandSpec kDoctorCommand;
extern const CommandSpec kTokenAddCommand;
extern const CommandSpec kTokenListCommand;
extern const CommandSpec kTokenShowCommand;
extern const CommandSpec kTokenKeygenCommand;
extern const CommandSpec kTokenRemoveCommand;
extern const CommandSpec kRecoveryKeyCreateCommand;
extern const CommandSpec kRecoveryKeyListCommand;
extern const CommandSpec kRecoveryKeyShowCommand;
extern const CommandSpec kRecoveryKeyExportCommand;
extern const CommandSpec kRecoveryKeyImportCommand;
extern const CommandSpec kRecoveryKeyPasswordCommand;
extern const CommandSpec kRecoveryKeyRetireCommand;
extern const CommandSpec kKeyAddCommand;
extern const CommandSpec kKeyListCommand;
extern const CommandSpec kKeyRemoveCommand;
extern const CommandSpec kBackupCommand;
extern const CommandSpec kRestoreCommand;
extern const CommandSpec kRotateCommand;
extern const CommandSpec kDestroyCommand;
extern const CommandSpec kDrillCommand;
extern const CommandSpec kVerifyCommand;
extern const CommandSpec kPathListCommand;
extern const CommandSpec kPathAddCommand;
extern const CommandSpec kPathReplaceCommand;
extern const CommandSpec kPathRemoveCommand;
extern const CommandSpec kPasswordChangeCommand;
extern const CommandSpec kAdoptCommand;
extern const CommandSpec kExportCommand;
extern const CommandSpec kImportCommand;
extern const CommandSpec kImportEventCommand;
extern const CommandSpec kRecoverySheetCommand;
extern const CommandSpec kListCommand;
extern const CommandSpec kShowCommand;
extern const CommandSpec kStatusCommand;
extern const CommandSpec kGateCommand;
extern const CommandSpec kWhatIfCommand;
extern const CommandSpec kAgentKeyShowCommand;
extern const CommandSpec kAgentKeyExportCommand;
extern const CommandSpec kTrustAddCommand;
extern const CommandSpec kTrustListCommand;
extern const CommandSpec kTrustRemoveCommand;
extern const CommandSpec kPolicyShowCommand;
extern const CommandSpec kPolicyCheckCommand;
extern const CommandSpec kPolicySignCommand;
extern const CommandSpec kPolicySetCommand;
extern const CommandSpec kAuditLogCommand;
extern const CommandSpec kAuditCheckpointCommand;
extern const CommandSpec kAuditProveCommand;
extern const CommandSpec kAuditReportCommand;
extern const CommandSpec kAuditAnchorCommand;
extern const CommandSpec kAuditExportCommand;
extern const CommandSpec kAuditSampleCommand;
extern const CommandSpec kWizardCommand;
extern const CommandSpec kCompletionCommand;
extern const CommandSpec kVersionCommand;
extern const CommandSpec kCompletionNamesCommand;  // in no list: for the completions alone

// UsageError says what is wrong and which help to read ("keyescrow restore --help").
Error UsageError(std::string message, std::string_view help);

}  // namespace keyescrow::agent
