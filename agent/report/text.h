// Text that came from outside (notes, reasons, names), made safe to show in a document.
#pragma once

#include <string>
#include <string_view>

namespace keyescrow::agent::report {

// VisibleText writes characters that are not seen, move or reorder others (controls, bidirectional
// marks, zero-width ones) as "U+202E"; bytes that are not UTF-8 become U+FFFD.
std::string VisibleText(std::string_view text);

// HtmlText is VisibleText with & < > " ' as entities: for element content and quoted attributes.
std::string HtmlText(std::string_view text);

}  // namespace keyescrow::agent::report
