#include "agent/cli/nearest_word.h"

#include <algorithm>
#include <array>

namespace keyescrow::agent {

std::size_t EditDistance(std::string_view left, std::string_view right) {
  constexpr std::size_t kLongest = 64;
  if (left.size() > kLongest || right.size() > kLongest) return std::max(left.size(), right.size());
  using Row = std::array<std::size_t, kLongest + 1>;
  Row before_last{};
  Row last{};
  Row row{};
  for (std::size_t j = 0; j <= right.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= left.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t cost = left[i - 1] == right[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + cost});
      if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last = last;
    last = row;
  }
  return last[right.size()];
}

void NearestWord::Consider(std::string_view candidate) {
  std::size_t distance = EditDistance(typed_, candidate);
  const std::string_view stem =
      typed_.substr(std::min(typed_.find_first_not_of('-'), typed_.size()));
  const bool begins = stem.size() >= 3 && candidate.starts_with(typed_);
  if (begins) distance = std::min<std::size_t>(distance, 2);
  const bool near_enough = begins || (distance <= 2 && distance * 3 <= candidate.size());
  if (!near_enough || distance >= best_distance_) return;
  best_ = candidate;
  best_distance_ = distance;
}

}  // namespace keyescrow::agent
