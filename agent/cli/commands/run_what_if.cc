// what-if: which keys survive, which open, and which are one step from it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/commands/specs.h"
#include "agent/cli/session.h"
#include "agent/cli/terminal_text.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/verify.h"
#include "agent/usecases/what_if.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxKeysShown = 20;

Json WhatIfKeyJson(const WhatIfKey& key) {
  Json json = Json::object();
  json["key"] = KeyJson(key.name, key.version);
  json["host"] = key.host;
  const bool known = key.not_analysed.empty();
  json["concerned"] = known ? Json(key.concerned) : Json(nullptr);
  json["lost"] = known ? Json(key.lost) : Json(nullptr);
  json["opened"] = known ? Json(key.opened) : Json(nullptr);
  json["paths_left"] = ListJson(key.paths_left);
  json["paths_opened"] = ListJson(key.paths_opened);
  json["losses_left"] = known ? Json(key.losses_left) : Json(nullptr);
  json["thefts_left"] = known ? Json(key.thefts_left) : Json(nullptr);
  json["not_analysed"] = TextOrNull(key.not_analysed);
  return json;
}

// Group writes the keys for which `belongs` is true under a heading; nothing where there is none.
template <typename Belongs, typename Why>
std::string Group(const std::string& heading, const Json& keys, Belongs belongs, Why why) {
  std::string text;
  std::size_t number = 0;
  for (const Json& key : keys) {
    if (!belongs(key) || ++number > kMaxKeysShown) continue;
    const std::string reason = why(key);
    text += fmt::format("  {} version {}{}\n",
                        EscapeForTerminal(key["key"]["name"].get_ref<const std::string&>()),
                        key["key"]["version"].get<std::uint32_t>(),
                        reason.empty() ? "" : ": " + EscapeForTerminal(reason));
  }
  if (number == 0) return "";
  if (number > kMaxKeysShown) {
    text += fmt::format("  and {} more; --json has all\n", number - kMaxKeysShown);
  }
  return fmt::format("{} ({})\n", heading, number) + text;
}

std::string Listed(const Json& list) {
  std::string text;
  for (const Json& item : list) text += (text.empty() ? "" : ", ") + item.get<std::string>();
  return text;
}

bool Is(const Json& value) { return value.is_boolean() && value.get<bool>(); }
bool IsOne(const Json& value) { return value.is_number() && value.get<std::size_t>() == 1; }
bool IsSafe(const Json& key) {
  return key["not_analysed"].is_null() && !Is(key["lost"]) && !Is(key["opened"]);
}

std::string RenderWhatIf(const Terminal& terminal, const Json& document) {
  const Json& keys = document["keys"];
  const auto nothing = [](const Json&) { return std::string(); };
  std::string text = fmt::format(
      "{}: {} lost, {} opened, {} neither\n", Count(keys.size(), "escrowed version"),
      document["num_lost"].get<std::size_t>(), document["num_opened"].get<std::size_t>(),
      document["num_safe"].get<std::size_t>());
  text += Group(
      terminal.PaintResult(Color::kRed, "lost"), keys,
      [](const Json& key) { return Is(key["lost"]); }, nothing);
  text += Group(
      terminal.PaintResult(Color::kRed, "opened"), keys,
      [](const Json& key) { return Is(key["opened"]); },
      [](const Json& key) { return "by " + Listed(key["paths_opened"]); });
  text += Group(
      terminal.PaintResult(Color::kYellow, "not analysed"), keys,
      [](const Json& key) { return !key["not_analysed"].is_null(); },
      [](const Json& key) { return key["not_analysed"].get<std::string>(); });
  text += Group(
      "touched, one step from being lost or opened", keys,
      [](const Json& key) {
        return IsSafe(key) && Is(key["concerned"]) &&
               (IsOne(key["losses_left"]) || IsOne(key["thefts_left"]));
      },
      [](const Json& key) {
        std::string why;
        if (IsOne(key["losses_left"])) why = "one more loss loses it";
        if (IsOne(key["thefts_left"]))
          why += (why.empty() ? "" : ", ") + std::string("one more theft opens it");
        return why + "; recoverable by " + Listed(key["paths_left"]);
      });
  for (const Json& note : document["notes"]) {
    text += "note: " + EscapeForTerminal(note.get_ref<const std::string&>()) + "\n";
  }
  return text;
}

Json Notes(const WhatIfReport& report) {
  Json notes = Json::array();
  if (report.store_lost) {
    notes.push_back("this store is on " + report.store_host +
                    ": envelopes that are nowhere else are lost with it; 'keyescrow export' makes "
                    "copies to keep elsewhere");
  }
  if (report.num_in_use_on_stolen_host != 0) {
    notes.push_back("who holds a live host holds the keys in use there, whatever their paths: " +
                    Count(report.num_in_use_on_stolen_host, "version") +
                    " here came from a stolen host");
  }
  if (report.num_foreign != 0) {
    notes.push_back(Count(report.num_foreign, "foreign escrow") +
                    " in the inventory, not held by keyescrow and not proven, and not reckoned "
                    "with here: 'keyescrow list' says what they say they survive");
  }
  return notes;
}

Result<int> DoWhatIf(const WhatIfOptions& options, Session& session) {
  if (options.lose.empty() && options.steal.empty()) {
    return UsageError("nothing is lost or stolen: give --lose X or --steal X",
                      "keyescrow what-if --help");
  }
  WhatIfRequest request{options.lose, options.steal, options.name, {}};
  if (!options.pack.empty()) {
    PackSource& pack = request.pack.emplace(PackSource{options.pack, {}, options.agent});
    if (!options.trust.empty()) {
      ASSIGN_OR_RETURN(pack.trust, ReadTrustDocument(options.trust));
    }
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(request.pack.has_value()));
  ASSIGN_OR_RETURN(const WhatIfReport report, WhatIf(agent, request));
  Json keys = Json::array();
  std::size_t num_lost = 0;
  std::size_t num_opened = 0;
  std::size_t num_safe = 0;
  std::size_t num_not_analysed = 0;
  for (const WhatIfKey& key : report.keys) {
    Json json = WhatIfKeyJson(key);
    num_lost += key.lost ? 1 : 0;
    num_opened += key.opened ? 1 : 0;
    num_safe += IsSafe(json) ? 1 : 0;
    num_not_analysed += key.not_analysed.empty() ? 0 : 1;
    keys.push_back(std::move(json));
  }
  Json document = NewDocument("what-if");
  document["lose"] = ListJson(options.lose);
  document["steal"] = ListJson(options.steal);
  document["num_lost"] = num_lost;
  document["num_opened"] = num_opened;
  document["num_safe"] = num_safe;
  document["num_not_analysed"] = num_not_analysed;
  document["pack"] = TextOrNull(options.pack);
  document["notes"] = Notes(report);
  document["keys"] = std::move(keys);
  return session.Finish(document, RenderWhatIf(session.terminal(), document),
                        num_lost + num_opened + num_not_analysed == 0 ? kExitDone : kExitFindings);
}

}  // namespace

int RunWhatIf(const GlobalOptions& /*global*/, const WhatIfOptions& options, Session& session) {
  return session.Exit(DoWhatIf(options, session));
}

}  // namespace keyescrow::agent
