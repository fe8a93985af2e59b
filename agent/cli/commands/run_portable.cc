// export, import, import-event: what leaves and enters the store as a file.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/foreign_text.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/foreign_escrow.h"
#include "agent/usecases/registry.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

// A restore writes a few lines of at most 2 KiB each; files may have been joined.
constexpr std::size_t kMaxEventFileBytes = 1U << 20;

// ReadAll returns 0, or the errno of what failed; `text` gets at most kMaxEventFileBytes + 1.
int ReadAll(int fd, std::string& text) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  std::string buffer(kMaxEventFileBytes + 1, '\0');
  std::size_t size = 0;
  while (size < buffer.size()) {
    const ssize_t count = read(fd, buffer.data() + size, buffer.size() - size);
    if (count == 0) break;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    size += static_cast<std::size_t>(count);
  }
  buffer.resize(size);
  text = std::move(buffer);
  return 0;
}

Result<std::string> ReadEventFile(const std::string& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  std::string text;
  const int error_number = fd < 0 ? errno : ReadAll(fd, text);
  if (fd >= 0) close(fd);
  if (error_number != 0) {
    return ErrnoError(
        ErrorCode::kNotFound, Action::kFixInput, "cannot read the event file '" + file + "'",
        "name a keyescrow-restore-ID.json that a restore without state wrote", error_number);
  }
  if (text.size() > kMaxEventFileBytes) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the event file '" + file + "' is over 1 MiB: no restore writes so much",
                 "name a keyescrow-restore-ID.json");
  }
  return text;
}

Result<int> DoExport(const ExportOptions& options, Session& session) {
  const bool to_stdout = options.output == "-";
  if (to_stdout) RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const ExportResult result, ExportKey(*agent, options.name, options.output));
  Json document = NewDocument("export");
  document["key"] = KeyJson(result.key_name, result.key_version);
  document["envelope_sha256"] = EncodeBase64Url(result.envelope_hash);
  document["agent"] = result.agent;
  document["output"] = result.output;
  document["receipt"] = TextOrNull(result.receipt);
  constexpr Column kFields[] = {
      {"receipt", "  receipt"}, {"envelope_sha256", "  envelope hash"}, {"agent", "  agent"}};
  const std::string text =
      EscapeForTerminal(fmt::format("exported {} version {} to {}", result.key_name,
                                    result.key_version, result.output)) +
      "\n" + RenderFields(document, kFields);
  return session.Finish(document, text, kExitDone, to_stdout);
}

// DoImportForeign: what another tool escrowed becomes a line of the inventory, and no key.
Result<int> DoImportForeign(const std::string& file, Agent& agent, Session& session) {
  session.devices().LastSignature();
  ASSIGN_OR_RETURN(const ForeignImport result, ImportForeign(agent, file));
  Json document = NewDocument("import-foreign");
  document["foreign"] = ForeignListJson(result.found);
  document["num_new"] = result.num_new;
  document["num_gone"] = result.num_gone;
  const std::string text =
      fmt::format("took {} into the inventory; {} new or changed, {} gone; no key was read\n",
                  Count(result.found.size(), "foreign escrow"), result.num_new, result.num_gone) +
      RenderForeign(document["foreign"]);
  return session.Finish(document, text);
}

Result<int> DoImport(const ImportOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const bool is_foreign, MeansForeign(*agent, options.file));
  if (is_foreign) return DoImportForeign(options.file, *agent, session);
  ASSIGN_OR_RETURN(const ImportKeyResult result, ImportKey(*agent, options.file));
  Json document = NewDocument("import");
  document["key"] = KeyJson(result.key_name, result.key_version);
  document["revision"] = result.revision;
  document["already_there"] = result.already_there;
  document["findings"] = ListJson(result.findings);
  const std::string key = EscapeForTerminal(fmt::format(
      "{} version {} revision {}", result.key_name, result.key_version, result.revision));
  ASSIGN_OR_RETURN(
      const int status,
      session.Finish(document, result.already_there ? key + " is in the store already\n"
                                                    : "imported " + key + "\n"));
  for (const std::string& finding : result.findings) session.terminal().Warn(finding);
  return status;
}

Result<int> DoImportEvent(const ImportEventOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::string text, ReadEventFile(options.file));
  session.devices().LastSignature();
  ASSIGN_OR_RETURN(const ImportResult result, agent->journal().ImportEvents(text));
  Json document = NewDocument("import-event");
  document["file"] = options.file;
  document["num_added"] = result.num_added;
  document["num_known"] = result.num_known;
  return session.Finish(document, fmt::format("logged {}; {} known already\n",
                                              Count(result.num_added, "event"), result.num_known));
}

}  // namespace

int RunExport(const GlobalOptions& /*global*/, const ExportOptions& options, Session& session) {
  return session.Exit(DoExport(options, session));
}

int RunImport(const GlobalOptions& /*global*/, const ImportOptions& options, Session& session) {
  return session.Exit(DoImport(options, session));
}

int RunImportEvent(const GlobalOptions& /*global*/, const ImportEventOptions& options,
                   Session& session) {
  return session.Exit(DoImportEvent(options, session));
}

}  // namespace keyescrow::agent
