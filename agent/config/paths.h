// Where configuration and state live.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "envelope/base/result.h"

namespace keyescrow::agent {

struct PathOverrides {
  std::string config = {};  // --config FILE; "": not given
  std::string state = {};   // --state DIR; "": not given
};

struct AgentPaths {
  std::string config_file;
  bool config_is_named = false;  // by --config or KEYESCROW_CONFIG
  std::string state_folder;
  bool state_is_default = false;  // neither --state nor KEYESCROW_STATE: agent.toml's may stand
};

// GetEnvironment returns a variable's value, or null: std::getenv, or a test's.
using GetEnvironment = std::function<const char*(const char*)>;

// ResolvePaths: options before KEYESCROW_CONFIG and KEYESCROW_STATE before the defaults:
// uid 0 /etc/keyescrow/agent.toml and /var/lib/keyescrow; others
// $XDG_CONFIG_HOME/keyescrow/agent.toml
// (~/.config) and $XDG_STATE_HOME/keyescrow (~/.local/state). A relative XDG folder is ignored, as
// the XDG Base Directory Specification asks. Errors: kConfiguration when there is no home folder.
Result<AgentPaths> ResolvePaths(const PathOverrides& overrides,
                                const GetEnvironment& get_environment, uid_t uid);

}  // namespace keyescrow::agent
