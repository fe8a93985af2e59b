#include "envelope/base/nearest_word.h"

#include <algorithm>
#include <array>

namespace keyescrow {
namespace {

char LowerCase(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

}  // namespace

std::size_t EditDistance(std::string_view left, std::string_view right) {
  constexpr std::size_t kLongest = 64;
  if (left.size() > kLongest || right.size() > kLongest) return std::max(left.size(), right.size());
  using Row = std::array<std::size_t, kLongest + 1>;
  const auto same = [&](std::size_t i, std::size_t j) {
    return LowerCase(left[i]) == LowerCase(right[j]);
  };
  Row before_last{};
  Row last{};
  Row row{};
  for (std::size_t j = 0; j <= right.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= left.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t cost = same(i - 1, j - 1) ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + cost});
      if (i > 1 && j > 1 && same(i - 1, j - 2) && same(i - 2, j - 1)) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last = last;
    last = row;
  }
  return last[right.size()];
}

std::string_view NearestWord(std::string_view word, std::span<const std::string_view> known) {
  if (word.empty()) return {};
  const std::string_view stem = word.substr(std::min(word.find_first_not_of('-'), word.size()));
  const std::size_t limit = stem.size() <= 3 ? 1 : stem.size() <= 7 ? 2 : 3;
  std::string_view nearest;
  std::size_t nearest_distance = std::max<std::size_t>(limit, 2) + 1;
  for (std::string_view candidate : known) {
    std::size_t distance = EditDistance(word, candidate);
    const bool begins = stem.size() >= 3 && candidate.starts_with(word);
    if (begins) distance = std::min<std::size_t>(distance, 2);
    if ((begins || distance <= limit) && distance < nearest_distance &&
        distance < candidate.size()) {
      nearest = candidate;
      nearest_distance = distance;
    }
  }
  return nearest;
}

std::string DidYouMean(std::string_view word, std::span<const std::string_view> known) {
  const std::string_view nearest = NearestWord(word, known);
  if (nearest.empty()) return "";
  return ", did you mean '" + std::string(nearest) + "'?";
}

}  // namespace keyescrow
