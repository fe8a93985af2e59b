// recovery-sheet: an escrowed key's envelope on paper.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/recovery_sheet.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

// FileOf returns the path of a file, or "" for standard output.
Result<std::string> FileOf(const std::string& output, const Session& session) {
  if (output == "-") {
    RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
    return std::string();
  }
  ASSIGN_OR_RETURN(const auto location, ParseLocation(output));
  std::string path = location->FilePath();
  if (path.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "a sheet goes to a file or to standard output, not to " + output,
                 "give '-o -' and pipe it");
  }
  return path;
}

Result<int> DoRecoverySheet(const RecoverySheetOptions& options, Session& session) {
  ASSIGN_OR_RETURN(const std::string path, FileOf(options.output, session));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const auto may_write = [&] {
    return CheckDocumentPlace(path, "a recovery sheet",
                              {"– keyescrow</title>", "KEYESCROW RECOVERY SHEET"});
  };
  if (!path.empty()) RETURN_IF_ERROR(may_write());
  RecoverySheetRequest request;
  request.key_name = options.name;
  request.as_text = options.text || path.ends_with(".txt");
  request.program_version = KEYESCROW_VERSION;
  ASSIGN_OR_RETURN(const RecoverySheetResult result, MakeRecoverySheet(*agent, request));
  if (path.empty()) {
    RETURN_IF_ERROR(session.terminal().WriteResult(result.document.text));
  } else {
    DurableWriteOptions write;
    write.mode = 0600;
    write.may_write = may_write;
    RETURN_IF_ERROR(WriteFileDurably(path, AsBytes(result.document.text), write));
  }
  Json document = NewDocument("recovery-sheet");
  document["key"] = KeyJson(result.key_name, result.key_version);
  document["envelope_sha256"] = EncodeBase64Url(result.envelope_hash);
  document["agent"] = result.agent;
  document["output"] = options.output;
  document["form"] = request.as_text ? "text" : "html";
  document["codes"] = result.document.num_codes;
  document["pages"] = result.document.num_pages;
  constexpr Column kFields[] = {{"envelope_sha256", "  envelope hash"}, {"agent", "  agent"}};
  const std::string text =
      EscapeForTerminal(fmt::format(
          "wrote the sheet of {} version {} to {}: {}, {}", result.key_name, result.key_version,
          options.output, Count(result.document.num_codes, request.as_text ? "line" : "code"),
          Count(result.document.num_pages, "page"))) +
      "\n" + RenderFields(document, kFields);
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text, kExitDone, path.empty()));
  session.terminal().Note(
      "print it, scan it once and 'keyescrow drill' what was scanned; then put it in the safe");
  return status;
}

}  // namespace

int RunRecoverySheet(const GlobalOptions& /*global*/, const RecoverySheetOptions& options,
                     Session& session) {
  return session.Exit(DoRecoverySheet(options, session));
}

}  // namespace keyescrow::agent
