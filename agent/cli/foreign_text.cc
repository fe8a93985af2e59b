#include "agent/cli/foreign_text.h"

#include <nlohmann/json.hpp>

#include "agent/cli/terminal_text.h"
#include "agent/cli/view_json.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxSetsShown = 6;

Json AnswerJson(const ForeignEscrow& escrow) {
  if (escrow.opens_nothing()) return nullptr;
  const auto answer = ForeignRecoverability(escrow.opens_by);
  if (!answer) return nullptr;
  Json json = Json::object();
  json["open"] = answer->open;
  json["survives"] = answer->open ? Json(nullptr) : Json(answer->survives);
  json["withstands"] = answer->open ? Json(nullptr) : Json(answer->withstands);
  json["losses"] = Json::array();
  for (const auto& set : answer->losses) json["losses"].push_back(ListJson(set));
  json["thefts"] = Json::array();
  for (const auto& set : answer->thefts) json["thefts"].push_back(ListJson(set));
  return json;
}

// Sets: "tpm + tang:http://a; fido2:0a1b2c3d".
std::string Sets(const Json& sets) {
  std::string text;
  std::size_t number = 0;
  for (const Json& set : sets) {
    if (++number > kMaxSetsShown) continue;
    std::string names;
    for (const Json& name : set) names += (names.empty() ? "" : " + ") + name.get<std::string>();
    text += (text.empty() ? "" : "; ") + names;
  }
  if (number > kMaxSetsShown) text += "; and " + std::to_string(number - kMaxSetsShown) + " more";
  return text;
}

std::vector<std::string> AnswerLines(const Json& escrow) {
  const Json& answer = escrow["recoverability"];
  if (answer.is_null()) {
    return {escrow["opens_nothing"].get<bool>() ? "opens no keyslot of the volume"
                                                : "what it survives is not known"};
  }
  if (answer["open"].get<bool>()) return {"anybody who has it opens it"};
  const auto survives = answer["survives"].get<std::size_t>();
  const std::string losses = survives == 0 ? "survives no loss"
                             : survives == 1
                                 ? "survives the loss of any one"
                                 : "survives the loss of any " + std::to_string(survives);
  return {losses + "; lost with " + Sets(answer["losses"]),
          "enough to open it: " + Sets(answer["thefts"])};
}

}  // namespace

Json ForeignJson(const ForeignEscrow& escrow) {
  Json json = Json::object();
  json["kind"] = escrow.kind;
  json["place"] = escrow.place;
  json["item"] = escrow.item;
  json["volume"] = TextOrNull(escrow.volume);
  json["keyslots"] = escrow.slots;
  json["opens_by"] = ForeignExpression(escrow.opens_by);
  json["opens_nothing"] = escrow.opens_nothing();
  json["recoverability"] = AnswerJson(escrow);
  json["caveats"] = ListJson(ForeignCaveats(escrow.opens_by));
  json["found"] = TimeJson(escrow.found);
  json["held"] = false;
  json["proven"] = false;
  return json;
}

Json ForeignListJson(const std::vector<ForeignEscrow>& escrows) {
  Json list = Json::array();
  for (const ForeignEscrow& escrow : escrows) list.push_back(ForeignJson(escrow));
  return list;
}

std::string RenderForeign(const Json& escrows) {
  if (escrows.empty()) return "";
  std::string text =
      "foreign escrows: not held by keyescrow, not proven; as they say it of themselves\n";
  for (const Json& escrow : escrows) {
    std::string slots;
    for (const Json& slot : escrow["keyslots"]) {
      slots += (slots.empty() ? ", keyslot " : ", ") + std::to_string(slot.get<unsigned>());
    }
    const auto line = [&text](const std::string& words) {
      text += EscapeForTerminal(words) + "\n";
    };
    line("  " + escrow["kind"].get<std::string>() + ": " + escrow["place"].get<std::string>() +
         " (" + escrow["item"].get<std::string>() + slots + ")");
    line("    opened by " + escrow["opens_by"].get<std::string>());
    for (const std::string& answer : AnswerLines(escrow)) line("    " + answer);
    for (const Json& caveat : escrow["caveats"]) line("    " + caveat.get<std::string>());
  }
  return text;
}

}  // namespace keyescrow::agent
