// The options of every command, as plain structs: what ParseCommandLine fills and Run… takes.
//
// A text member that was not given is "": an empty value on the command line is refused, since it
// is nearly always an unset shell variable. Names, path expressions and locations are only split
// here; the use cases check them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace keyescrow::agent {

enum class ColorMode : std::uint8_t { kAuto, kAlways, kNever };

// GlobalOptions are accepted before and after the command.
struct GlobalOptions {
  bool json = false;
  std::string config;  // "": KEYESCROW_CONFIG, else the default place
  std::string state;   // "": KEYESCROW_STATE, else the default place
  std::string tpm;     // "": the default TCTI; "none": no TPM
  bool quiet = false;
  bool trace = false;
  bool no_input = false;
  bool yes = false;
  ColorMode color = ColorMode::kAuto;
};

// SecretOptions say where secrets come from; secret_sources.h reads them.
struct SecretOptions {
  std::vector<std::string> password_files = {};  // [PATH-ID=]FILE, "-" for standard input
  std::optional<std::uint32_t> password_fd = {};
  std::vector<std::string> new_password_files = {};  // [PATH-ID=]FILE
  std::vector<std::string> pin_files = {};           // [TOKEN=]FILE
  std::optional<std::uint32_t> pin_fd = {};
};

struct InitOptions {
  std::string policy;                    // FILE
  std::vector<std::string> policy_keys;  // verifier keys; with `policy`
};

struct DoctorOptions {
  std::string module;  // --module SO: try this PKCS#11 module as well
};

enum class KdfChoice : std::uint8_t { kArgon2id, kPbkdf2Sha512 };

enum class TokenKeyKind : std::uint8_t { kRsa3072, kP256 };

struct TokenAddOptions {
  std::string name;
  std::string uri;     // RFC 7512
  std::string module;  // required
  bool use_last_try = false;
  SecretOptions secrets;
};
struct TokenKeygenOptions {
  std::string name;
  std::string uri;
  std::string module;  // required
  TokenKeyKind kind = TokenKeyKind::kRsa3072;
  bool use_last_try = false;
  SecretOptions secrets;
};
struct TokenListOptions {};
struct TokenShowOptions {
  std::string name;
};
struct TokenRemoveOptions {
  std::string name;
};

struct RecoveryKeyCreateOptions {
  std::string name;
  std::string path;  // EXPR, required: what opens its private half
  std::optional<KdfChoice> kdf;
  bool prove_none = false;
  SecretOptions secrets;
};
struct RecoveryKeyListOptions {};
struct RecoveryKeyShowOptions {
  std::string name;
};
struct RecoveryKeyExportOptions {
  std::string name;
  std::string output;  // -o SINK; "": standard output
};
struct RecoveryKeyImportOptions {
  std::string file;
  std::string sha256;  // of the record, as `recovery-key show` tells it; "": to be confirmed
};
struct RecoveryKeyPasswordOptions {
  std::string name;
  std::optional<KdfChoice> kdf;
  SecretOptions secrets;
};
struct RecoveryKeyRetireOptions {
  std::string name;
};

struct KeyAddOptions {
  std::string name;
  std::string source;              // required
  std::vector<std::string> paths;  // EXPR
};
struct KeyListOptions {};
struct KeyRemoveOptions {
  std::string name;
};

// BackupOptions: exactly one of `name` and `all`; `generate_bytes` comes with `to`; `from` and
// `generate_bytes` exclude each other (the parser checks these three).
struct BackupOptions {
  std::string name;
  bool all = false;
  std::string from;                             // SOURCE
  std::optional<std::uint32_t> generate_bytes;  // 1–65536
  std::string to;                               // SINK of the generated key
  std::vector<std::string> paths;               // [ID=]EXPR
  std::optional<KdfChoice> kdf;
  std::vector<std::string> prove;  // path ids, or "none" alone
  std::string note;
  std::string output;            // -o SINK: also write a portable file
  std::string luks_unlock_file;  // FILE; of a luks: source or sink
  SecretOptions secrets;
};

// RestoreOptions: `agent` and `accept_unknown_agent` exclude each other (the parser checks it).
struct RestoreOptions {
  std::string name_or_file;
  std::string to;                        // SINK; "": what the declaration or the terminal says
  std::string via;                       // path id
  std::optional<std::uint64_t> version;  // from 1
  std::string reason;
  std::string ticket;
  std::string expect;  // NAME[@VERSION]
  bool replace = false;
  bool discard_previous = false;
  std::string confirm;  // the name once more, for what may be the only copy
  std::string module;
  std::string agent;  // thumbprint
  bool accept_unknown_agent = false;
  bool use_last_try = false;
  std::string pcr_policy_signature;  // FILE
  std::string event_log;             // FILE
  std::string luks_unlock_file;      // FILE; of a luks: sink
  SecretOptions secrets;
};

// RotateOptions: `from` and `generate_bytes` exclude each other; `abandon` goes with the name alone
// (the parser checks both).
struct RotateOptions {
  std::string name;
  std::string from;                              // SOURCE of the new key
  std::optional<std::uint32_t> generate_bytes;   // 1–65536; without both: as long as the old key
  std::string apply;                             // a command
  std::optional<std::uint32_t> apply_timeout_s;  // 1–86400; none: 5 minutes
  std::string to;                                // SINK
  std::string luks_unlock_file;                  // FILE; of a luks: sink
  std::string via;                               // path id
  std::vector<std::string> paths;                // [ID=]EXPR
  std::optional<KdfChoice> kdf;
  std::vector<std::string> prove;
  std::string note;
  std::string reason;
  std::string ticket;
  bool abandon = false;
  SecretOptions secrets;
};

// DestroyOptions: `confirm` repeats the name, for scripts.
struct DestroyOptions {
  std::string name;
  std::string confirm;
  std::string reason;
  std::string ticket;
};

// DrillOptions: at most one of `name_or_file` and `all`; neither only with `challenge` (the parser
// checks both).
struct DrillOptions {
  std::string name_or_file;
  bool all = false;
  std::string via;        // path id
  std::string challenge;  // FILE
  std::string answers;    // FILE: what the tokens made of the challenge's nonces
  std::string module;
  std::string agent;                 // thumbprint
  std::string pcr_policy_signature;  // FILE
  std::string event_log;             // FILE
  SecretOptions secrets;
};

struct VerifyOptions {
  std::vector<std::string> names_or_files;  // or state folders; empty: everything in the store
  std::string trust;                        // FILE
  std::string agent;                        // thumbprint
  std::string since;                        // FILE with a checkpoint
  std::string challenge;                    // FILE; with one PACK alone
  std::string expected;                     // FILE; with `challenge` and `answers` alone
  std::string answers;                      // FILE
  std::optional<std::uint32_t> threads;     // 1–64
  bool quick = false;
  bool record = false;
};

// EditOptions: what the commands that change a key's paths have in common.
struct EditOptions {
  std::string via;                       // path id
  std::optional<std::uint64_t> version;  // from 1; none: the newest
  std::string module;
  bool use_last_try = false;
};
struct PathListOptions {
  std::string name;
};
struct PathAddOptions {
  std::string name;
  std::vector<std::string> paths;  // [ID=]EXPR
  std::optional<KdfChoice> kdf;
  EditOptions edit;
  SecretOptions secrets;
};
struct PathReplaceOptions {
  std::string name;
  std::string id;
  std::vector<std::string> paths;  // [ID=]EXPR
  std::optional<KdfChoice> kdf;
  EditOptions edit;
  SecretOptions secrets;
};
struct PathRemoveOptions {
  std::string name;
  std::vector<std::string> ids;
  EditOptions edit;
  SecretOptions secrets;
};
struct PasswordChangeOptions {
  std::string name;
  std::vector<std::string> path_ids;  // none: every path, where they have one password
  std::optional<KdfChoice> kdf;
  EditOptions edit;
  SecretOptions secrets;
};

struct AdoptOptions {
  std::string name_or_file;
  std::string as;
  std::vector<std::string> paths;  // [ID=]EXPR
  std::string via;                 // path id
  std::optional<KdfChoice> kdf;
  std::string note;
  std::string reason;
  std::string ticket;
  std::string module;
  std::string agent;  // thumbprint
  bool use_last_try = false;
  SecretOptions secrets;
};

struct ExportOptions {
  std::string name;
  std::string output;  // -o SINK, required
};
struct ImportOptions {
  std::string file;
};
struct ImportEventOptions {
  std::string file;
};

struct RecoverySheetOptions {
  std::string name;
  std::string output;  // -o FILE, required; "-": standard output
  bool text = false;
};

struct ListOptions {};
struct ShowOptions {
  std::string name_or_file;
  std::string module;
};
struct StatusOptions {
  std::string name;           // "": every key
  bool exec_sources = false;  // run declared exec: sources to compare the key in use
  bool nagios = false;
  bool prometheus = false;
  std::string output;  // FILE of --prometheus; "": standard output
};

struct GateOptions {
  std::string name;
  std::vector<std::string> command;  // empty: decide alone
  std::string override_reason;       // "": no override
  bool exec_sources = false;
};

struct WizardOptions {};

// WhatIfOptions: at least one of `lose` and `steal` is given (RunWhatIf checks it).
struct WhatIfOptions {
  std::string name;                // "": every key
  std::vector<std::string> lose;   // token:NAME, host:HOST …
  std::vector<std::string> steal;  // the same
  std::string pack;                // --in PACK; "": this host's state
  std::string trust;               // FILE; with `pack`
  std::string agent;               // thumbprint; with `pack`
};

struct AgentKeyShowOptions {};
struct AgentKeyExportOptions {
  std::string output;  // -o SINK; "": standard output
};
struct TrustAddOptions {
  std::string agent;               // thumbprint, or a file of `agent-key export`
  std::vector<std::string> hosts;  // for which hosts it may sign; empty: any
  std::vector<std::string> keys;   // for which key names (patterns as in policies); empty: any
};
struct TrustListOptions {};
struct TrustRemoveOptions {
  std::string agent;  // thumbprint
};

struct PolicyShowOptions {};
struct PolicyCheckOptions {
  std::string file;
  std::vector<std::string> policy_keys;  // verifier keys
};
// PolicySignOptions: exactly one of `key`, `new_key` and `token`; `module` goes with a token's URI,
// which wants a `name` (the parser checks these).
struct PolicySignOptions {
  std::string file;     // "": say only which key it is
  std::string key;      // FILE, "agent", "token:NAME" or a PKCS#11 URI
  std::string new_key;  // FILE
  std::string token;    // NAME of a registered token, or a PKCS#11 URI
  std::string module;   // SO
  std::string name;     // of the signer
  bool use_last_try = false;
  SecretOptions secrets;
};
struct PolicySetOptions {
  std::string file;
  std::vector<std::string> policy_keys;
};

// AuditLogOptions: `json_lines` and the global --json exclude each other.
struct AuditLogOptions {
  bool json_lines = false;
  std::optional<std::uint64_t> since;  // the first entry's number
};
struct AuditCheckpointOptions {};
struct AuditProveOptions {
  std::string name;
};

// AuditReportOptions: `html` and `csv` exclude each other (the parser checks it), and --json too.
struct AuditReportOptions {
  bool html = false;
  bool csv = false;
  std::string output;  // -o SINK; "": standard output
};

struct AuditAnchorOptions {
  bool renew = false;
  std::string accept;  // why a counter that is not where the log has it is accepted
};

struct AuditExportOptions {
  std::string output;  // -o PACK, required; "-": standard output
};

struct AuditSampleOptions {
  std::optional<std::uint32_t> number;  // -n N, required
  std::string output;                   // -o FILE, required
  std::string expected;                 // FILE: the answers of tokens
  std::string pack;                     // --in PACK
  std::string trust;                    // FILE
  std::string agent;                    // thumbprint
};

// CompletionNamesOptions: of a command that only the completions call, and no help names.
struct CompletionNamesOptions {
  std::string kind;  // "keys", "tokens", "paths", "losses"
  std::string name;  // of the key, for "paths"
};

// TextToPrint: the command was answered by the parser (help, version, completion): print it to
// standard output and exit with 0.
struct TextToPrint {
  std::string text;
};

using CommandOptions = std::variant<
    TextToPrint, InitOptions, DoctorOptions, TokenAddOptions, TokenListOptions, TokenShowOptions,
    TokenKeygenOptions, TokenRemoveOptions, KeyAddOptions, KeyListOptions, KeyRemoveOptions,
    BackupOptions, RestoreOptions, DrillOptions, VerifyOptions, PathListOptions, PathAddOptions,
    PathReplaceOptions, PathRemoveOptions, PasswordChangeOptions, AdoptOptions, ExportOptions,
    ImportOptions, ImportEventOptions, ListOptions, ShowOptions, StatusOptions, GateOptions,
    AgentKeyShowOptions, AgentKeyExportOptions, TrustAddOptions, TrustListOptions,
    TrustRemoveOptions, PolicyShowOptions, PolicyCheckOptions, PolicySignOptions, PolicySetOptions,
    AuditLogOptions, AuditCheckpointOptions, AuditProveOptions, AuditReportOptions, WhatIfOptions,
    RecoveryKeyCreateOptions, RecoveryKeyListOptions, RecoveryKeyShowOptions,
    RecoveryKeyExportOptions, RecoveryKeyImportOptions, RecoveryKeyPasswordOptions,
    RecoveryKeyRetireOptions, AuditAnchorOptions, AuditExportOptions, AuditSampleOptions,
    RecoverySheetOptions, CompletionNamesOptions, WizardOptions, RotateOptions, DestroyOptions>;

}  // namespace keyescrow::agent
