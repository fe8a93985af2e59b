// The nearest known word, for error messages: "unknown key 'hosts', did you mean 'host'?".
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace keyescrow {

// NearestWord returns the word of `known` with the smallest edit distance to `word` (the first of
// several), or "" when none is near enough to be a misspelling: the distance must be at most 1 for
// words of up to 3 letters, 2 up to 7, else 3. Case does not count.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> known);

// DidYouMean returns ", did you mean 'nearest'?", or "" for none.
std::string DidYouMean(std::string_view word, std::span<const std::string_view> known);

}  // namespace keyescrow
