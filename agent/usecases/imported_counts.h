// Texts of EventCounts from before and after imported events were counted apart.
#pragma once

#include <string>
#include <string_view>

namespace keyescrow::agent {

// CountsAreOfOwn: a text that counts the log's own events apart from imported ones, or no events.
// An older version's does not, and is counted anew.
bool CountsAreOfOwn(std::string_view text);

// CountsWithImported returns a text of today as an older version would have written it.
std::string CountsWithImported(std::string_view text);

}  // namespace keyescrow::agent
