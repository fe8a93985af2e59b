#include "agent/cli/recoverability_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/cli/terminal_text.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxWidth = 80;
constexpr std::size_t kMaxSetsShown = 8;
constexpr std::size_t kMaxSetsInLine = 2;
constexpr std::size_t kMaxFactorsInLine = 4;

std::vector<std::string> Texts(const Json& array) {
  std::vector<std::string> texts;
  for (const Json& text : array)
    texts.push_back(EscapeForTerminal(text.get_ref<const std::string&>()));
  return texts;
}

std::string Joined(const Json& set) { return fmt::format("{}", fmt::join(Texts(set), " + ")); }

// CountWord: "one", "two" … as people say it.
std::string CountWord(std::size_t number) {
  constexpr std::string_view kWords[] = {"none", "one", "two", "three", "four", "five", "six"};
  return number < std::size(kWords) ? std::string(kWords[number]) : std::to_string(number);
}

std::string Survives(const Json& recoverability) {
  const auto survives = recoverability["survives"].get<std::size_t>();
  if (survives > 0) return "survives the loss of any " + CountWord(survives);
  // The single losses come first.
  std::string factors;
  std::size_t num_single = 0;
  for (const Json& set : recoverability["losses"]) {
    if (set.size() != 1) break;
    if (++num_single <= kMaxFactorsInLine) factors += (factors.empty() ? "" : " or ") + Joined(set);
  }
  if (num_single > kMaxFactorsInLine)
    factors += fmt::format(" or {} more", num_single - kMaxFactorsInLine);
  return "lost with " + factors;
}

// AppendList writes "title  a + b" and one more line a set, broken before it is too wide.
void AppendSets(std::string& out, std::string_view title, const Json& sets) {
  constexpr std::size_t kIndent = 14;
  std::string line = fmt::format("  {:<{}}", title, kIndent - 2);
  std::size_t num_shown = 0;
  for (const Json& set : sets) {
    if (num_shown == kMaxSetsShown) break;
    ++num_shown;
    bool first = true;
    for (const std::string& factor : Texts(set)) {
      const std::string word = first ? factor : " + " + factor;
      // A line that is continued ends in " +".
      if (!first && DisplayWidth(line) + DisplayWidth(word) > kMaxWidth - 2) {
        out += line + " +\n";
        line = std::string(kIndent + 2, ' ') + factor;
      } else {
        line += word;
      }
      first = false;
    }
    out += line + "\n";
    line = std::string(kIndent, ' ');
  }
  if (sets.size() > num_shown) {
    out += line + fmt::format("and {} more sets; --json has all\n", sets.size() - num_shown);
  }
}

// Cell: what one path wants of one factor: "x" it, "2of3" (narrow: "2") so many of the officers,
// "." nothing.
std::string Cell(const Json& path, const Json& factor, bool narrow) {
  const auto has = [&](const Json& list) {
    return std::find(list.begin(), list.end(), factor) != list.end();
  };
  if (has(path["needs"])) return "x";
  if (has(path["officers"])) {
    if (narrow) return std::to_string(path["threshold"].get<unsigned>());
    return fmt::format("{}of{}", path["threshold"].get<unsigned>(), path["officers"].size());
  }
  return ".";
}

std::string Letter(std::size_t index) { return std::string(1, static_cast<char>('A' + index)); }

std::string Centered(const std::string& text, std::size_t width) {
  const std::size_t taken = DisplayWidth(text);
  const std::size_t left = width > taken ? (width - taken) / 2 : 0;
  const std::size_t right = width > taken + left ? width - taken - left : 0;
  return std::string(left, ' ') + text + std::string(right, ' ');
}

std::string Grid(const Json& recoverability) {
  std::vector<std::string> titles = Texts(recoverability["factors"]);
  const Json& paths = recoverability["paths"];
  std::size_t id_width = 4;
  for (const Json& path : paths)
    id_width = std::max(id_width, path["id"].get_ref<const std::string&>().size());
  std::size_t width = 2 + id_width;
  for (const std::string& title : titles)
    width += 2 + std::max<std::size_t>(5, DisplayWidth(title));
  // Too wide for names: letters, and below what they stand for.
  std::string legend;
  const bool narrow = width > kMaxWidth;
  if (narrow) {
    for (std::size_t index = 0; index < titles.size(); ++index) {
      legend += fmt::format("  {} = {}\n", Letter(index), titles[index]);
      titles[index] = Letter(index);
    }
    const bool has_officers = std::any_of(
        paths.begin(), paths.end(), [](const Json& path) { return !path["officers"].empty(); });
    if (has_officers) legend += "  a number: so many of those that have it\n";
  }
  std::vector<std::vector<std::string>> rows = {titles};
  for (const Json& path : paths) {
    auto& row = rows.emplace_back();
    for (const Json& factor : recoverability["factors"]) row.push_back(Cell(path, factor, narrow));
  }
  std::vector<std::size_t> widths(titles.size());
  for (const auto& row : rows) {
    for (std::size_t index = 0; index < row.size(); ++index) {
      widths[index] = std::max(widths[index], DisplayWidth(row[index]));
    }
  }
  std::string out;
  for (std::size_t index = 0; index < rows.size(); ++index) {
    const std::string id =
        index == 0 ? "path"
                   : EscapeForTerminal(paths[index - 1]["id"].get_ref<const std::string&>());
    std::string line = fmt::format("  {:<{}}", id, id_width);
    for (std::size_t column = 0; column < rows[index].size(); ++column) {
      line += "  " + Centered(rows[index][column], widths[column]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out + legend;
}

}  // namespace

Json RecoverabilityJson(const KeyView& key) {
  if (!key.recoverability) return nullptr;
  const envelope::Recoverability& analysis = *key.recoverability;
  const envelope::PathModel& model = analysis.model();
  const auto sets = [&](const std::vector<envelope::FactorSet>& of) {
    Json list = Json::array();
    for (const envelope::FactorSet set : of) list.push_back(model.Names(set));
    return list;
  };
  Json json = Json::object();
  json["survives"] = analysis.survives();
  json["withstands"] = analysis.withstands();
  json["losses"] = sets(analysis.minimal_losses());
  json["thefts"] = sets(analysis.minimal_thefts());
  json["factors"] = model.factors();
  json["paths"] = Json::array();
  for (std::size_t path = 0; path < key.paths.size(); ++path) {
    const envelope::FactorSet officers = model.PathShares(path);
    Json item = Json::object();
    item["id"] = key.paths[path].id;
    item["needs"] = model.Names(model.PathUses(path) & ~officers);
    item["threshold"] = officers != 0 ? Json(model.Threshold(path)) : Json(nullptr);
    item["officers"] = model.Names(officers);
    json["paths"].push_back(std::move(item));
  }
  return json;
}

std::string RecoverabilityLine(const Json& recoverability) {
  if (recoverability.is_null()) return "too many factors to say what it survives";
  const Json& thefts = recoverability["thefts"];
  std::string line = Survives(recoverability) + "; opened by ";
  for (std::size_t index = 0; index < std::min(thefts.size(), kMaxSetsInLine); ++index) {
    line += (index == 0 ? "" : " or ") + Joined(thefts[index]);
  }
  if (thefts.size() > kMaxSetsInLine) {
    line += fmt::format(" or in {} more ways", thefts.size() - kMaxSetsInLine);
  }
  return line;
}

std::string RecoverabilityDrawing(const Json& recoverability) {
  if (recoverability.is_null()) return "  " + RecoverabilityLine(recoverability) + "\n";
  const auto withstands = recoverability["withstands"].get<std::size_t>();
  std::string out = Grid(recoverability);
  out += fmt::format("  {}; {}\n", Survives(recoverability),
                     withstands == 0   ? "one theft opens it"
                     : withstands == 1 ? "no single theft opens it"
                                       : "no " + CountWord(withstands) + " thefts open it");
  AppendSets(out, "lost with", recoverability["losses"]);
  AppendSets(out, "opened by", recoverability["thefts"]);
  return out;
}

}  // namespace keyescrow::agent
