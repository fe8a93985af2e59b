#include "envelope/blocklist.h"

#include <algorithm>

namespace keyescrow::envelope {
namespace {

// One text of lines, not an array of pointers: a table of 5500 pointers would be relocated at every
// start of the program, and a lookup is wanted once in a while.
constexpr std::string_view kBlocklist =
#include "envelope/blocklist_data.inc"
    ;
constexpr std::string_view kPassphraseWords =
#include "envelope/passphrase_words.inc"
    ;

}  // namespace

bool IsBlockedPassword(ByteView folded) {
  const std::string_view wanted = AsText(folded);
  std::size_t low = 0;  // start of a line; the wanted line, if any, starts in [low, high)
  std::size_t high = kBlocklist.size();
  while (low < high) {
    std::size_t start = low + (high - low) / 2;
    while (start > low && kBlocklist[start - 1] != '\n') --start;
    const std::size_t end = kBlocklist.find('\n', start);
    const int order = kBlocklist.substr(start, end - start).compare(wanted);
    if (order == 0) return true;
    if (order < 0) {
      low = end + 1;
    } else {
      high = start;
    }
  }
  return false;
}

std::size_t BlocklistSize() {
  return static_cast<std::size_t>(std::count(kBlocklist.begin(), kBlocklist.end(), '\n'));
}

std::string_view PassphraseWord(std::size_t index) {
  std::size_t start = 0;
  for (; index > 0; --index) start = kPassphraseWords.find('\n', start) + 1;
  return kPassphraseWords.substr(start, kPassphraseWords.find('\n', start) - start);
}

}  // namespace keyescrow::envelope
