// Text that is safe to show on a terminal, and how much room it takes there.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace keyescrow::agent {

// EscapeForTerminal returns `text` with control characters (C0, DEL, C1), line and paragraph
// separators, bidirectional and invisible format characters and bytes that are not UTF-8 written
// as \n, \t, \r, \x1b, \u{202e}. For reading by people: it is not meant to be undone.
std::string EscapeForTerminal(std::string_view text);

// EscapeLinesForTerminal is the same, but keeps line feeds.
std::string EscapeLinesForTerminal(std::string_view text);

// DisplayWidth: the columns that UTF-8 text without control characters takes on a terminal: wide
// characters two, combining marks none, a byte that is not UTF-8 one.
std::size_t DisplayWidth(std::string_view text);

}  // namespace keyescrow::agent
