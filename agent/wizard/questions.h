// Questions: one question a page. Everywhere "<" goes back and "?" explains; a number chooses;
// Enter takes what stands in brackets. Ctrl-C leaves, as everywhere.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/wizard/dialogue.h"
#include "agent/wizard/page.h"

namespace keyescrow::agent {

class Questions {
 public:
  explicit Questions(Dialogue& dialogue) : dialogue_(dialogue) {}

  // Choose returns the index of a choice; none: go back. `taken_by_enter` < number of choices.
  // Errors: the dialogue's.
  Result<std::optional<std::size_t>> Choose(const Page& page, std::size_t taken_by_enter);

  // CheckText says what is wrong with an answer, or "".
  using CheckText = std::function<std::string(const std::string&)>;
  // AskText returns an answer that `check` takes; none: go back. Enter gives `taken_by_enter`.
  Result<std::optional<std::string>> AskText(const Page& page, std::string_view label,
                                             const std::string& taken_by_enter,
                                             const CheckText& check);

  // AskNewSecret has it typed twice alike; none: go back, and `secret` stays what it was. Where
  // `secret` has one already, Enter keeps it.
  Result<bool> AskNewSecret(const Page& page, std::string_view label, SecretBytes& secret);

  Dialogue& dialogue() { return dialogue_; }

 private:
  // Meta handles "?" and tells whether the answer was that.
  bool Explained(const Page& page, const std::string& answer);

  Dialogue& dialogue_;
};

}  // namespace keyescrow::agent
