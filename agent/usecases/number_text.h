// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace keyescrow::agent {

// Grouped: "1,204,331".
std::string Grouped(std::uint64_t number);
// Plural: "1 tile", "1,204 tiles".
std::string Plural(std::uint64_t number, std::string_view one, std::string_view many);

}  // namespace keyescrow::agent
