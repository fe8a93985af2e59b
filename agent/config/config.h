// agent.toml: what an admin declares. Strict: an unknown key is an error that names its line,
// column and the nearest known word.
//
//   [agent]
//   host = "db1"                      # name in envelopes; default: the machine's name
//   tpm = "device:/dev/tpmrm0"        # TCTI, or "none"; default: what the machine has
//   state = "/var/lib/keyescrow"      # state folder; --state and KEYESCROW_STATE override it
//   [defaults]
//   kdf = "argon2id"                  # or "pbkdf2-sha512"
//   argon2id_memory_kib = 262144      # costs of every new path; default: the format's
//   argon2id_passes = 4
//   argon2id_lanes = 4
//   pbkdf2_iterations = 1000000
//   paths = ["password & token:ops"]  # for keys that name none
//   password_profile = "nist-800-63b" # or "ssrs"
//   [[key]]
//   name = "prod/db/main"
//   source = "file:/etc/app/key"
//   paths = ["password & token:ops", "off=password & tpm"]   # optional
//   kdf = "pbkdf2-sha512"                                    # optional
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent {

struct DeclaredKey {
  std::string name;
  std::string source;                   // as written, for ParseLocation
  std::vector<std::string> paths = {};  // as written, for ParsePathOptions; empty: the defaults'
  std::string kdf = {};                 // "" (the defaults'), "argon2id" or "pbkdf2-sha512"
  std::uint32_t line = 0;  // of its [[key]] in the file, from 1; 0 where it was not read
};

// KdfCosts: what a guess at a new password costs, where the format's defaults are not wanted. The
// machine that restores must afford it as well. Ranges: envelope::CheckKdfParameters.
struct KdfCosts {
  std::optional<std::uint32_t> argon2id_memory_kib;
  std::optional<std::uint32_t> argon2id_passes;
  std::optional<std::uint32_t> argon2id_lanes;
  std::optional<std::uint32_t> pbkdf2_iterations;
  bool operator==(const KdfCosts&) const = default;
};

struct AgentConfig {
  bool present = false;  // the file is there
  std::string file;      // its path
  std::string host;      // "": not set
  std::string tpm;       // "": not set
  std::string state;     // "": not set
  std::string default_kdf = "argon2id";
  KdfCosts kdf_costs;
  std::vector<std::string> default_paths;
  std::string password_profile;  // "": not set
  std::vector<DeclaredKey> keys;

  // FindKey returns the declared key of that name, or null.
  const DeclaredKey* FindKey(std::string_view name) const;
};

// LoadConfig reads `path`; a file that is absent gives the defaults and costs one system call.
// Names, sources and path expressions are not parsed here: their rooms do it, and the caller adds
// "agent.toml line N" as context. Errors: kConfiguration.
Result<AgentConfig> LoadConfig(const std::string& path);

// ParseConfig is LoadConfig on text already read; `file` names it in messages.
Result<AgentConfig> ParseConfig(std::string_view text, const std::string& file);

// AddDeclaredKey appends a [[key]] block and leaves every other byte as it was; a missing file is
// made (0644). The new text is parsed before it replaces the old one, atomically and durably; a
// lock on the folder keeps two writers apart.
// Errors: kAlreadyExists when the name is declared; kConfiguration; kDestination*.
Status AddDeclaredKey(const std::string& path, const DeclaredKey& key);

// RemoveDeclaredKey takes the key's [[key]] block out, with the comment lines that stand directly
// above it, and leaves every other byte as it was. Errors: kNotFound; kConfiguration;
// kDestination*.
Status RemoveDeclaredKey(const std::string& path, std::string_view name);

}  // namespace keyescrow::agent
