// Page: what the wizard shows before it asks one question. At most 78 columns wide.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/error.h"

namespace keyescrow::agent {

struct Choice {
  std::string text;
  std::string detail = {};  // a sentence below it, or ""
};

struct Page {
  std::string title;
  std::vector<std::string> paragraphs = {};
  std::vector<Choice> choices = {};
  std::string help = {};  // what "?" shows
};

// RenderPage returns the page: a rule with the title, the paragraphs wrapped, the choices numbered
// from 1. A paragraph that begins with two blanks stands as it is.
std::string RenderPage(const Page& page);

// WrapText breaks `text` at blanks so that each line, `indent` blanks included, has at most 78
// columns; a word that is longer stands alone. Each line ends in a line feed.
std::string WrapText(std::string_view text, std::size_t indent);

// ErrorText returns the error as two paragraphs, "error: …" and "hint: …".
std::vector<std::string> ErrorText(const Error& error);

}  // namespace keyescrow::agent
