#include "agent/usecases/survival_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxSetsInLine = 2;
constexpr std::size_t kMaxFactorsInLine = 4;

std::string NumberWord(std::size_t number) {
  constexpr std::string_view kWords[] = {"none", "one", "two", "three", "four", "five", "six"};
  return number < std::size(kWords) ? std::string(kWords[number]) : std::to_string(number);
}

std::string Joined(const envelope::PathModel& model, envelope::FactorSet set) {
  return fmt::format("{}", fmt::join(model.Names(set), " + "));
}

std::string LossesText(const envelope::Recoverability& analysis) {
  if (analysis.survives() > 0) {
    return "survives the loss of any " + NumberWord(analysis.survives());
  }
  // The single losses come first.
  std::string factors;
  std::size_t num_single = 0;
  for (const envelope::FactorSet set : analysis.minimal_losses()) {
    if (std::popcount(set) != 1) break;
    if (++num_single > kMaxFactorsInLine) continue;
    factors += (factors.empty() ? "" : " or ") + Joined(analysis.model(), set);
  }
  if (num_single > kMaxFactorsInLine) {
    factors += fmt::format(" or {} more", num_single - kMaxFactorsInLine);
  }
  return "lost with " + factors;
}

}  // namespace

std::string SurvivalText(const std::optional<envelope::Recoverability>& recoverability) {
  if (!recoverability) return "too many factors to say what it survives";
  const auto& thefts = recoverability->minimal_thefts();
  std::string text = LossesText(*recoverability) + "; opened by ";
  for (std::size_t index = 0; index < std::min(thefts.size(), kMaxSetsInLine); ++index) {
    text += (index == 0 ? "" : " or ") + Joined(recoverability->model(), thefts[index]);
  }
  if (thefts.size() > kMaxSetsInLine) {
    text += fmt::format(" or in {} more ways", thefts.size() - kMaxSetsInLine);
  }
  return text;
}

}  // namespace keyescrow::agent
