// What the person may have meant.
#pragma once

#include <cstddef>
#include <string_view>

namespace keyescrow::agent {

// EditDistance counts insertions, deletions, replacements and swaps of neighbours (optimal string
// alignment), in bytes. Words above 64 bytes: the longer length.
std::size_t EditDistance(std::string_view left, std::string_view right);

// NearestWord keeps the nearest of the words that it is shown.
class NearestWord {
 public:
  explicit NearestWord(std::string_view typed) : typed_(typed) {}
  void Consider(std::string_view candidate);
  // found: a word near enough, or "": at most 2 edits and a third of its length, or the typed word
  // is its beginning (3 bytes or more).
  std::string_view found() const { return best_; }

 private:
  std::string_view typed_;
  std::string_view best_;
  std::size_t best_distance_ = 1000;
};

}  // namespace keyescrow::agent
