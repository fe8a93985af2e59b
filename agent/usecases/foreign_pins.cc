// What follows from the pins of a foreign escrow, and how the store keeps them.
#include "agent/usecases/foreign_pins.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "agent/usecases/foreign_json.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::json;
using Kind = ForeignPin::Kind;
using Set = std::uint32_t;

constexpr std::size_t kMaxFactors = 16;
constexpr std::size_t kMaxSets = 256;

// The kinds as the store has them, in the order of Kind.
constexpr std::string_view kKindNames[] = {"threshold", "tpm",      "tang",    "token",  "fido2",
                                           "pin",       "recovery", "nothing", "unknown"};

std::string Label(const ForeignPin& pin) {
  switch (pin.kind) {
    case Kind::kTpm: return "tpm";
    case Kind::kTang: return "tang:" + pin.name;
    case Kind::kToken: return "token:" + pin.name;
    case Kind::kFido2: return "fido2:" + pin.name;
    case Kind::kPin: return "pin";
    case Kind::kRecoveryKey: return "recovery-passphrase";
    case Kind::kNothing: return "nothing";
    default: return "unknown:" + pin.name;
  }
}

std::string Expression(const ForeignPin& pin, bool is_inner) {
  if (pin.kind != Kind::kThreshold) {
    return Label(pin) + (pin.detail.empty() ? "" : " (" + pin.detail + ")");
  }
  if (pin.members.size() == 1) return Expression(pin.members[0], is_inner);
  const bool all = pin.threshold == pin.members.size();
  std::string members;
  for (const ForeignPin& member : pin.members) {
    members += (members.empty() ? "" : all ? " & " : ", ") + Expression(member, true);
  }
  if (all) return is_inner ? "(" + members + ")" : members;
  return fmt::format("{} of ({})", pin.threshold, members);
}

// Numbers gives each label a bit; false where a pin is unknown, or there are too many labels.
bool Number(const ForeignPin& pin, std::map<std::string, Set>& bits,
            std::vector<std::string>& labels) {
  if (pin.kind == Kind::kUnknown) return false;
  if (pin.kind == Kind::kNothing) return true;
  if (pin.kind == Kind::kThreshold) {
    return std::all_of(pin.members.begin(), pin.members.end(),
                       [&](const ForeignPin& member) { return Number(member, bits, labels); });
  }
  if (bits.emplace(Label(pin), Set{1} << labels.size()).second) labels.push_back(Label(pin));
  return labels.size() <= kMaxFactors;
}

// Rule is a pin whose factors are bits.
struct Rule {
  Set factor = 0;  // 0: nothing is needed, unless there are members
  unsigned threshold = 0;
  std::vector<Rule> members = {};
};

Rule MakeRule(const ForeignPin& pin, const std::map<std::string, Set>& bits) {
  Rule rule;
  if (pin.kind != Kind::kThreshold && pin.kind != Kind::kNothing) rule.factor = bits.at(Label(pin));
  rule.threshold = pin.kind == Kind::kThreshold ? pin.threshold : 0;
  for (const ForeignPin& member : pin.members) rule.members.push_back(MakeRule(member, bits));
  return rule;
}

bool Opens(const Rule& rule, Set have) {
  if (rule.factor != 0) return (rule.factor & have) != 0;
  unsigned count = 0;
  for (const Rule& member : rule.members) {
    if (count < rule.threshold && Opens(member, have)) ++count;
  }
  return count >= rule.threshold;
}

// MinimalSets returns the sets for which `is_one` holds, and for no part of them; fewer first.
// False where they are too many. `is_one` holds for every set that has one in it.
template <typename Is>
bool MinimalSets(std::size_t num_factors, Is is_one, std::vector<Set>& minimal) {
  for (std::size_t size = 0; size <= num_factors; ++size) {
    for (Set set = 0; set < Set{1} << num_factors; ++set) {
      if (static_cast<std::size_t>(std::popcount(set)) != size || !is_one(set)) continue;
      if (std::any_of(minimal.begin(), minimal.end(),
                      [set](Set part) { return (part & ~set) == 0; })) {
        continue;
      }
      minimal.push_back(set);
      if (minimal.size() > kMaxSets) return false;
    }
  }
  return true;
}

std::vector<std::vector<std::string>> Names(const std::vector<Set>& sets,
                                            const std::vector<std::string>& labels) {
  std::vector<std::vector<std::string>> lists;
  for (const Set set : sets) {
    std::vector<std::string>& list = lists.emplace_back();
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if ((set >> i & 1) != 0) list.push_back(labels[i]);
    }
    std::sort(list.begin(), list.end());
  }
  return lists;
}

void AddCaveats(const ForeignPin& pin, bool& has_pcrs, bool& has_tang) {
  has_pcrs = has_pcrs || (pin.kind == Kind::kTpm && !pin.detail.empty());
  has_tang = has_tang || pin.kind == Kind::kTang;
  for (const ForeignPin& member : pin.members) AddCaveats(member, has_pcrs, has_tang);
}

Json PinJson(const ForeignPin& pin) {
  Json json = Json::object();
  json["kind"] = kKindNames[static_cast<std::size_t>(pin.kind)];
  if (!pin.name.empty()) json["name"] = pin.name;
  if (!pin.detail.empty()) json["detail"] = pin.detail;
  if (pin.kind != Kind::kThreshold) return json;
  json["threshold"] = pin.threshold;
  json["members"] = Json::array();
  for (const ForeignPin& member : pin.members) json["members"].push_back(PinJson(member));
  return json;
}

bool ReadPinJson(const Json& json, ForeignPin& pin) {
  const std::string* kind = Text(json, "kind");
  const auto known = kind == nullptr
                         ? std::end(kKindNames)
                         : std::find(std::begin(kKindNames), std::end(kKindNames), *kind);
  if (known == std::end(kKindNames)) return false;
  pin.kind = static_cast<Kind>(known - std::begin(kKindNames));
  if (const std::string* name = Text(json, "name")) pin.name = *name;
  if (const std::string* detail = Text(json, "detail")) pin.detail = *detail;
  if (pin.kind != Kind::kThreshold) return true;
  const Json* threshold = Member(json, "threshold");
  const Json* members = Member(json, "members");
  if (threshold == nullptr || !threshold->is_number_unsigned() || members == nullptr ||
      !members->is_array() || threshold->get<std::uint64_t>() < 1 ||
      threshold->get<std::uint64_t>() > members->size()) {
    return false;
  }
  pin.threshold = threshold->get<unsigned>();
  return std::all_of(members->begin(), members->end(), [&](const Json& member) {
    return ReadPinJson(member, pin.members.emplace_back());
  });
}

bool ReadRow(std::string_view text, ForeignPin& pin, std::vector<unsigned>& slots) {
  const auto json = ParseForeignObject(text);
  if (!json || !ReadPinJson(*json, pin)) return false;
  const Json* list = Member(*json, "slots");
  if (list == nullptr || !list->is_array()) return false;
  for (const Json& slot : *list) {
    if (!slot.is_number_unsigned() || slot.get<std::uint64_t>() > 31) return false;
    slots.push_back(slot.get<unsigned>());
  }
  return true;
}

}  // namespace

std::string CleanForeignName(std::string_view name) {
  std::string clean;
  for (const char c : name) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') ||
                          std::string_view("-._~:/?#[]@!$*+;=%").find(c) != std::string_view::npos;
    clean += is_plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return clean;
}

std::string ForeignExpression(const ForeignPin& pin) { return Expression(pin, false); }

std::optional<ForeignAnswer> ForeignRecoverability(const ForeignPin& pin) {
  std::map<std::string, Set> bits;
  std::vector<std::string> labels;
  if (!Number(pin, bits, labels)) return std::nullopt;
  const Rule rule = MakeRule(pin, bits);
  ForeignAnswer answer;
  answer.open = Opens(rule, 0);
  if (answer.open) return answer;
  const Set all = (Set{1} << labels.size()) - 1;
  std::vector<Set> losses;
  std::vector<Set> thefts;
  if (!MinimalSets(
          labels.size(), [&](Set set) { return !Opens(rule, all & ~set); }, losses) ||
      !MinimalSets(
          labels.size(), [&](Set set) { return Opens(rule, set); }, thefts)) {
    return std::nullopt;
  }
  answer.survives = static_cast<std::size_t>(std::popcount(losses.front())) - 1;
  answer.withstands = static_cast<std::size_t>(std::popcount(thefts.front())) - 1;
  answer.losses = Names(losses, labels);
  answer.thefts = Names(thefts, labels);
  return answer;
}

std::vector<std::string> ForeignCaveats(const ForeignPin& pin) {
  bool has_pcrs = false;
  bool has_tang = false;
  AddCaveats(pin, has_pcrs, has_tang);
  std::vector<std::string> caveats;
  if (has_pcrs) {
    caveats.emplace_back(
        "its TPM opens under the same PCRs alone: other firmware, boot loader or Secure Boot keys "
        "can close it");
  }
  if (has_tang) {
    caveats.emplace_back(
        "a Tang server opens it over the network, and while it keeps its old keys");
  }
  return caveats;
}

std::string WriteForeignPins(const ForeignPin& pin, const std::vector<unsigned>& slots) {
  Json json = PinJson(pin);
  json["slots"] = slots;
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

void ReadForeignPins(std::string_view text, ForeignPin& pin, std::vector<unsigned>& slots) {
  if (ReadRow(text, pin, slots)) return;
  slots.clear();
  pin = ForeignPin();
  pin.name = "unreadable";
  pin.detail = "the store's row does not parse: import it again";
}

}  // namespace keyescrow::agent
