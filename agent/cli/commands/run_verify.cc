// verify: everything that can be checked without a secret, and what was not checked.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {
namespace {

std::string RenderItems(const Terminal& terminal, const Json& items) {
  std::string text;
  for (const Json& item : items) {
    const bool good = item["good"].get<bool>();
    const bool has_findings = !item["findings"].empty();
    const std::string outcome = !good          ? terminal.PaintResult(Color::kRed, "BAD")
                                : has_findings ? terminal.PaintResult(Color::kYellow, "findings")
                                               : terminal.PaintResult(Color::kGreen, "good");
    text += EscapeForTerminal(item["what"].get_ref<const std::string&>()) + ": " + outcome + "\n";
    if (!good) {
      const Json& error = item["error"];
      text += "  error: " + EscapeForTerminal(error["message"].get_ref<const std::string&>()) +
              "\n  hint: " + EscapeForTerminal(error["hint"].get_ref<const std::string&>()) + "\n";
    }
    for (const auto& [member, title] :
         {std::pair{"findings", "finding"}, std::pair{"checked", "checked"},
          std::pair{"not_checked", "not checked"}}) {
      for (const Json& line : item[member]) {
        text +=
            fmt::format("  {}: {}\n", title, EscapeForTerminal(line.get_ref<const std::string&>()));
      }
    }
  }
  return text;
}

Json ItemJson(const VerifyItem& item) {
  Json json = Json::object();
  json["what"] = item.what;
  json["good"] = !item.error.has_value();
  json["error"] = item.error ? ErrorJson(*item.error) : Json(nullptr);
  json["findings"] = ListJson(item.findings);
  json["checked"] = ListJson(item.checked);
  json["not_checked"] = ListJson(item.not_checked);
  return json;
}

Result<int> DoVerify(const VerifyOptions& options, Session& session) {
  const bool all_files =
      !options.names_or_files.empty() && std::ranges::all_of(options.names_or_files, MeansFile);
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(all_files));
  if (agent == nullptr && !options.since.empty()) {
    return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                 "there is no log here that could be compared with " + options.since,
                 "run this on the agent's host, or leave --since out");
  }
  session.progress().Step("verifying");
  ASSIGN_OR_RETURN(
      const std::vector<VerifyItem> items,
      Verify(agent, {options.names_or_files, options.trust, options.agent, options.since}));
  session.progress().Pause();
  // One thing that was asked for and is bad is the command's error.
  if (items.size() == 1 && items.front().error && !options.names_or_files.empty()) {
    return *items.front().error;
  }
  int status = kExitDone;
  std::size_t num_bad = 0;
  std::size_t num_envelopes = 0;
  Json document = NewDocument("verify");
  Json list = Json::array();
  for (const VerifyItem& item : items) {
    num_envelopes += item.what == "log" || item.what == "anchor" ? 0U : 1U;
    num_bad += item.error ? 1U : 0U;
    if (item.error && (status == kExitDone || status == kExitFindings)) {
      status = ExitStatus(*item.error);
    }
    if (!item.findings.empty() && status == kExitDone) status = kExitFindings;
    list.push_back(ItemJson(item));
  }
  document["good"] = status == kExitDone;
  document["num_envelopes"] = num_envelopes;
  document["num_bad"] = num_bad;
  document["items"] = std::move(list);
  std::string text = RenderItems(session.terminal(), document["items"]);
  text += fmt::format("{}, {} bad\n", Count(num_envelopes, "envelope"), num_bad);
  ASSIGN_OR_RETURN(status, session.Finish(document, text, status));
  if (num_envelopes == 0 && status == kExitDone) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no envelope is in the store",
                 "escrow a key with 'keyescrow backup', or name a file to verify");
  }
  return status;
}

}  // namespace

int RunVerify(const GlobalOptions& /*global*/, const VerifyOptions& options, Session& session) {
  return session.Exit(DoVerify(options, session));
}

}  // namespace keyescrow::agent
