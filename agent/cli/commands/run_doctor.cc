// doctor: what people trip over, each with its remedy.
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/doctor.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kAreaWidth = 15;  // "configuration" and two blanks

std::string_view OutcomeName(CheckOutcome outcome) {
  switch (outcome) {
    case CheckOutcome::kGood: return "good";
    case CheckOutcome::kWarning: return "warning";
    case CheckOutcome::kBad: return "bad";
    case CheckOutcome::kSkipped: return "skipped";
  }
  return "";
}

std::string PaintOutcome(const Terminal& terminal, const std::string& outcome) {
  const std::string padded = outcome + std::string(9 - outcome.size(), ' ');
  if (outcome == "good") return terminal.PaintResult(Color::kGreen, padded);
  if (outcome == "warning") return terminal.PaintResult(Color::kYellow, padded);
  if (outcome == "bad") return terminal.PaintResult(Color::kRed, padded);
  return terminal.PaintResult(Color::kDim, padded);
}

std::string RenderChecks(const Terminal& terminal, const Json& checks) {
  std::string text;
  for (const Json& check : checks) {
    const std::string area = EscapeForTerminal(check["area"].get_ref<const std::string&>());
    text += PaintOutcome(terminal, check["outcome"].get<std::string>()) + area +
            std::string(area.size() < kAreaWidth ? kAreaWidth - area.size() : 0, ' ') +
            EscapeForTerminal(check["what"].get_ref<const std::string&>()) + "\n";
    if (check["remedy"].is_null()) continue;
    text += std::string(9 + kAreaWidth, ' ') +
            "remedy: " + EscapeForTerminal(check["remedy"].get_ref<const std::string&>()) + "\n";
  }
  return text;
}

Result<int> DoDoctor(const DoctorOptions& options, Session& session) {
  const std::vector<Check> checks =
      Doctor(session.environment(), options.module, session.config_error());
  Json document = NewDocument("doctor");
  std::size_t num_bad = 0;
  std::size_t num_warnings = 0;
  Json list = Json::array();
  for (const Check& check : checks) {
    num_bad += check.outcome == CheckOutcome::kBad ? 1U : 0U;
    num_warnings += check.outcome == CheckOutcome::kWarning ? 1U : 0U;
    Json item = Json::object();
    item["area"] = check.area;
    item["outcome"] = OutcomeName(check.outcome);
    item["what"] = check.what;
    item["remedy"] = TextOrNull(check.remedy);
    item["code"] = TextOrNull(check.code);
    list.push_back(std::move(item));
  }
  document["good"] = num_bad == 0;
  document["num_bad"] = num_bad;
  document["num_warnings"] = num_warnings;
  document["checks"] = std::move(list);
  std::string text = RenderChecks(session.terminal(), document["checks"]);
  text += Count(checks.size(), "check") + ": " + std::to_string(num_bad) + " bad, " +
          Count(num_warnings, "warning") + "\n";
  return session.Finish(document, text, num_bad == 0 ? kExitDone : kExitFindings);
}

}  // namespace

int RunDoctor(const GlobalOptions& /*global*/, const DoctorOptions& options, Session& session) {
  return session.Exit(DoDoctor(options, session));
}

}  // namespace keyescrow::agent
