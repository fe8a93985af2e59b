#include "agent/config/paths.h"

#include <utility>

namespace keyescrow::agent {
namespace {

std::string ValueOf(const GetEnvironment& get_environment, const char* variable) {
  const char* value = get_environment(variable);
  return value == nullptr ? "" : value;
}

// XdgFolder: the variable's absolute folder, or `fallback` in the home folder; "" without either.
// Source: XDG Base Directory Specification 0.8.
std::string XdgFolder(const GetEnvironment& get_environment, const char* variable,
                      const char* fallback) {
  const std::string folder = ValueOf(get_environment, variable);
  if (folder.starts_with('/')) return folder + "/keyescrow";
  const std::string home = ValueOf(get_environment, "HOME");
  return home.empty() ? "" : home + fallback + "/keyescrow";
}

Error NoHome(const char* what, const char* option, const char* variable) {
  return Error(ErrorCode::kConfiguration, Action::kFixInput,
               std::string("there is no home folder (HOME is not set) for the ") + what,
               std::string("name it with ") + option + " or " + variable);
}

}  // namespace

Result<AgentPaths> ResolvePaths(const PathOverrides& overrides,
                                const GetEnvironment& get_environment, uid_t uid) {
  AgentPaths paths;
  paths.config_file =
      overrides.config.empty() ? ValueOf(get_environment, "KEYESCROW_CONFIG") : overrides.config;
  paths.config_is_named = !paths.config_file.empty();
  if (!paths.config_is_named) {
    const std::string folder =
        uid == 0 ? "/etc/keyescrow" : XdgFolder(get_environment, "XDG_CONFIG_HOME", "/.config");
    if (folder.empty()) return NoHome("configuration", "--config", "KEYESCROW_CONFIG");
    paths.config_file = folder + "/agent.toml";
  }
  paths.state_folder =
      overrides.state.empty() ? ValueOf(get_environment, "KEYESCROW_STATE") : overrides.state;
  if (paths.state_folder.empty()) {
    paths.state_is_default = true;
    paths.state_folder = uid == 0 ? "/var/lib/keyescrow"
                                  : XdgFolder(get_environment, "XDG_STATE_HOME", "/.local/state");
    if (paths.state_folder.empty()) return NoHome("state", "--state", "KEYESCROW_STATE");
  }
  return paths;
}

}  // namespace keyescrow::agent
