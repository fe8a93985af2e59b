// The nearest known word, for error messages: "unknown key 'hosts', did you mean 'host'?".
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace keyescrow {

// EditDistance counts insertions, deletions, substitutions and swaps of neighbours (optimal string
// alignment), in bytes; the case of ASCII letters does not count. Words above 64 bytes: the longer
// length.
std::size_t EditDistance(std::string_view left, std::string_view right);

// NearestWord returns the word of `known` with the smallest edit distance to `word` (the first of
// several), or "" when none is near enough to be a misspelling: the distance must be at most 1 for
// words of up to 3 letters (dashes at the front not counted), 2 up to 7, else 3. A word that `word`
// begins, by 3 letters or more after any dashes, is as near as one with 2 edits.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> known);

// DidYouMean returns ", did you mean 'nearest'?", or "" for none.
std::string DidYouMean(std::string_view word, std::span<const std::string_view> known);

}  // namespace keyescrow
