#include "agent/wizard/command_text.h"

namespace keyescrow::agent {
namespace {

void Add(std::string& line, std::string_view option, std::string_view value) {
  if (value.empty()) return;
  line.append(" ").append(option).append(" ").append(ShellWord(value));
}

}  // namespace

std::string BackupCommand(const std::string& command, const BackupRequest& request) {
  std::string line = command + " backup " + ShellWord(request.key_name);
  Add(line, "--from", request.source);
  if (request.generate_bytes > 0) {
    Add(line, "--generate", std::to_string(request.generate_bytes));
    Add(line, "--to", request.sink);
  }
  Add(line, "--luks-unlock-file", request.luks_unlock_file);
  for (const std::string& path : request.paths) Add(line, "--path", path);
  Add(line, "--output", request.output);
  return line;
}

std::string RestoreCommand(const std::string& command, const RestoreRequest& request) {
  std::string line = command + " restore " + ShellWord(request.name_or_file);
  Add(line, "--to", request.sink);
  Add(line, "--luks-unlock-file", request.luks_unlock_file);
  Add(line, "--via", request.via);
  Add(line, "--agent", request.trusted_agent);
  Add(line, "--module", request.module);
  Add(line, "--reason", request.reason);
  Add(line, "--ticket", request.ticket);
  if (request.replace) line += " --replace";
  return line;
}

}  // namespace keyescrow::agent
