// rotate: a new key in the place of the one in use.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/kdf_name.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/file_location.h"
#include "agent/usecases/rotate.h"

namespace keyescrow::agent {
namespace {

RotateRequest MakeRequest(const RotateOptions& options) {
  RotateRequest request;
  request.key_name = options.name;
  request.source = options.from;
  request.generate_bytes = options.generate_bytes.value_or(0);
  request.sink = options.to;
  request.command = options.apply;
  if (options.apply_timeout_s) {
    request.apply_timeout = std::chrono::seconds(*options.apply_timeout_s);
  }
  request.luks_unlock_file = options.luks_unlock_file;
  request.via = options.via;
  request.paths = options.paths;
  request.kdf = KdfName(options.kdf);
  request.prove = options.prove;
  request.note = options.note;
  request.reason = options.reason;
  request.ticket = options.ticket;
  request.abandon = options.abandon;
  return request;
}

Json ResultJson(const RotateResult& result) {
  Json document = NewDocument("rotate");
  document["key"] = KeyJson(result.key_name, result.new_version);
  document["old_version"] = result.old_version;
  document["outcome"] = result.rotated ? "confirmed" : "abandoned";
  document["interrupted"] = nullptr;
  if (result.interrupted) {
    document["interrupted"] = {{"version", result.interrupted->version},
                               {"step", result.interrupted->step},
                               {"outcome", result.interrupted->outcome}};
  }
  document["confirmed_by"] = TextOrNull(result.confirmed_by);
  document["sink"] = TextOrNull(result.sink);
  document["previous"] = TextOrNull(result.previous_path);
  document["keyslot"] = result.keyslot ? Json(*result.keyslot) : Json(nullptr);
  document["retired_keyslot"] =
      result.retired_keyslot ? Json(*result.retired_keyslot) : Json(nullptr);
  Json paths = Json::array();
  for (const PathProof& path : result.paths) {
    paths.push_back(
        {{"id", path.path_id},
         {"factors", path.expression},
         {"portable", path.portable},
         {"proven", path.proven},
         {"covered_since", path.covered_since ? TimeJson(*path.covered_since) : Json(nullptr)},
         {"why_not", TextOrNull(path.why_not)}});
  }
  document["paths"] = std::move(paths);
  document["log_seq"] = result.log_seq ? Json(*result.log_seq) : Json(nullptr);
  document["agent_signed_log"] = result.p256_signed;
  document["findings"] = ListJson(result.findings);
  return document;
}

std::string RenderResult(const RotateResult& result, const Json& document) {
  constexpr Column kFields[] = {
      {"confirmed_by", "  confirmed by"},
      {"sink", "  handed over to"},
      {"previous", "  the old key"},
      {"keyslot", "  keyslot"},
      {"retired_keyslot", "  removed keyslot"},
      {"log_seq", "  log entry"},
  };
  const std::string text =
      result.rotated ? fmt::format("rotated {} from version {} to {}\n", result.key_name,
                                   result.old_version, result.new_version)
                     : fmt::format("{} version {} was abandoned; version {} {}\n", result.key_name,
                                   result.new_version, result.old_version,
                                   result.settled ? "stays in use" : "counts as the one in use");
  return EscapeForTerminal(text.substr(0, text.size() - 1)) + "\n" +
         RenderFields(document, kFields);
}

Result<int> DoRotate(const GlobalOptions& global, const RotateOptions& options, Session& session) {
  if (options.to == "-") RETURN_IF_ERROR(session.CheckStdoutSink("--to", true));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets,
                   session.OpenSecrets(options.secrets, options.from == "-" ? "--from -" : ""));
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const RotateResult result,
                   Rotate(*agent, MakeRequest(options), desk, session.progress()));
  const Json document = ResultJson(result);
  const bool is_good = result.recoverable && result.retired_all && result.settled;
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, RenderResult(result, document),
                                  is_good ? kExitDone : kExitFindings, options.to == "-"));
  for (const std::string& finding : result.findings) session.terminal().Warn(finding);
  if (!result.previous_path.empty()) {
    const std::string path =
        result.previous_path.substr(0, result.previous_path.rfind(kPreviousSuffix));
    session.terminal().Note("once the application runs: keyescrow restore " + result.key_name +
                            " --discard-previous --to " + path);
  }
  if (result.rotated) {
    session.terminal().Note(
        fmt::format("exported files and sheets of before hold version {}; a copy for the safe: "
                    "keyescrow export {} -o FILE",
                    result.old_version, result.key_name));
  }
  return status;
}

}  // namespace

int RunRotate(const GlobalOptions& global, const RotateOptions& options, Session& session) {
  const Result<int> done = DoRotate(global, options, session);
  const int status = session.Exit(done);
  // Ctrl-C, or a service's stop, ended the command: who called sees it as ever.
  constexpr int kExitSignal = 128;
  const bool by_signal = !done && done.error().native_domain() == "signal";
  return by_signal ? kExitSignal + static_cast<int>(done.error().native_code()) : status;
}

}  // namespace keyescrow::agent
