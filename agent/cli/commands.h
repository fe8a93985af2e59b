// One Run… a command, each in commands/<name>.cc. It returns the exit status (exit_code.h), having
// written its result to standard output and its error to standard error.
#pragma once

#include "agent/cli/options.h"

namespace keyescrow::agent {

class Session;  // what main.cc wires: terminal, secrets, configuration, store, devices
class Devices;

int RunInit(const GlobalOptions& global, const InitOptions& options, Session& session);
int RunDoctor(const GlobalOptions& global, const DoctorOptions& options, Session& session);
int RunTokenAdd(const GlobalOptions& global, const TokenAddOptions& options, Session& session);
int RunTokenList(const GlobalOptions& global, const TokenListOptions& options, Session& session);
int RunTokenShow(const GlobalOptions& global, const TokenShowOptions& options, Session& session);
int RunTokenKeygen(const GlobalOptions& global, const TokenKeygenOptions& options,
                   Session& session);
int RunTokenRemove(const GlobalOptions& global, const TokenRemoveOptions& options,
                   Session& session);
int RunRecoveryKeyCreate(const GlobalOptions& global, const RecoveryKeyCreateOptions& options,
                         Session& session);
int RunRecoveryKeyList(const GlobalOptions& global, const RecoveryKeyListOptions& options,
                       Session& session);
int RunRecoveryKeyShow(const GlobalOptions& global, const RecoveryKeyShowOptions& options,
                       Session& session);
int RunRecoveryKeyExport(const GlobalOptions& global, const RecoveryKeyExportOptions& options,
                         Session& session);
int RunRecoveryKeyImport(const GlobalOptions& global, const RecoveryKeyImportOptions& options,
                         Session& session);
int RunRecoveryKeyPassword(const GlobalOptions& global, const RecoveryKeyPasswordOptions& options,
                           Session& session);
int RunRecoveryKeyRetire(const GlobalOptions& global, const RecoveryKeyRetireOptions& options,
                         Session& session);
int RunKeyAdd(const GlobalOptions& global, const KeyAddOptions& options, Session& session);
int RunKeyList(const GlobalOptions& global, const KeyListOptions& options, Session& session);
int RunKeyRemove(const GlobalOptions& global, const KeyRemoveOptions& options, Session& session);
int RunBackup(const GlobalOptions& global, const BackupOptions& options, Session& session);
int RunRestore(const GlobalOptions& global, const RestoreOptions& options, Session& session);
// PrepareRestore begins what takes time and needs neither configuration nor state: the worker of a
// token, where the command line shows that one is meant.
void PrepareRestore(const RestoreOptions& options, Devices& devices);
int RunDrill(const GlobalOptions& global, const DrillOptions& options, Session& session);
int RunVerify(const GlobalOptions& global, const VerifyOptions& options, Session& session);
int RunPathList(const GlobalOptions& global, const PathListOptions& options, Session& session);
int RunPathAdd(const GlobalOptions& global, const PathAddOptions& options, Session& session);
int RunPathReplace(const GlobalOptions& global, const PathReplaceOptions& options,
                   Session& session);
int RunPathRemove(const GlobalOptions& global, const PathRemoveOptions& options, Session& session);
int RunPasswordChange(const GlobalOptions& global, const PasswordChangeOptions& options,
                      Session& session);
int RunAdopt(const GlobalOptions& global, const AdoptOptions& options, Session& session);
int RunExport(const GlobalOptions& global, const ExportOptions& options, Session& session);
int RunImport(const GlobalOptions& global, const ImportOptions& options, Session& session);
int RunImportEvent(const GlobalOptions& global, const ImportEventOptions& options,
                   Session& session);
int RunRecoverySheet(const GlobalOptions& global, const RecoverySheetOptions& options,
                     Session& session);
int RunCompletionNames(const GlobalOptions& global, const CompletionNamesOptions& options,
                       Session& session);
int RunList(const GlobalOptions& global, const ListOptions& options, Session& session);
int RunShow(const GlobalOptions& global, const ShowOptions& options, Session& session);
int RunStatus(const GlobalOptions& global, const StatusOptions& options, Session& session);
int RunGate(const GlobalOptions& global, const GateOptions& options, Session& session);
int RunWizard(const GlobalOptions& global, const WizardOptions& options, Session& session);
int RunWhatIf(const GlobalOptions& global, const WhatIfOptions& options, Session& session);
int RunAgentKeyShow(const GlobalOptions& global, const AgentKeyShowOptions& options,
                    Session& session);
int RunAgentKeyExport(const GlobalOptions& global, const AgentKeyExportOptions& options,
                      Session& session);
int RunTrustAdd(const GlobalOptions& global, const TrustAddOptions& options, Session& session);
int RunTrustList(const GlobalOptions& global, const TrustListOptions& options, Session& session);
int RunTrustRemove(const GlobalOptions& global, const TrustRemoveOptions& options,
                   Session& session);
int RunPolicyShow(const GlobalOptions& global, const PolicyShowOptions& options, Session& session);
int RunPolicyCheck(const GlobalOptions& global, const PolicyCheckOptions& options,
                   Session& session);
int RunPolicySign(const GlobalOptions& global, const PolicySignOptions& options, Session& session);
int RunPolicySet(const GlobalOptions& global, const PolicySetOptions& options, Session& session);
int RunAuditLog(const GlobalOptions& global, const AuditLogOptions& options, Session& session);
int RunAuditCheckpoint(const GlobalOptions& global, const AuditCheckpointOptions& options,
                       Session& session);
int RunAuditAnchor(const GlobalOptions& global, const AuditAnchorOptions& options,
                   Session& session);
int RunAuditProve(const GlobalOptions& global, const AuditProveOptions& options, Session& session);
int RunAuditReport(const GlobalOptions& global, const AuditReportOptions& options,
                   Session& session);

int RunAuditSample(const GlobalOptions& global, const AuditSampleOptions& options,
                   Session& session);

int RunRotate(const GlobalOptions& global, const RotateOptions& options, Session& session);
int RunDestroy(const GlobalOptions& global, const DestroyOptions& options, Session& session);

int RunAuditExport(const GlobalOptions& global, const AuditExportOptions& options,
                   Session& session);

}  // namespace keyescrow::agent
