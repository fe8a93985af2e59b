// ShellWord: what a person can paste.
#pragma once

#include <string>
#include <string_view>

namespace keyescrow::agent {

// ShellWord returns `text` as one word of a POSIX shell: quoted where it must be.
std::string ShellWord(std::string_view text);

}  // namespace keyescrow::agent
