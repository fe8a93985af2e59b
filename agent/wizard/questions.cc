#include "agent/wizard/questions.h"

#include <fmt/format.h>

#include <charconv>

namespace keyescrow::agent {
namespace {

constexpr std::string_view kBack = "<";
constexpr std::string_view kKeys = "(<: back   ?: explain   Ctrl-C: leave)\n";

bool IsBack(const SecretBytes& secret) {
  return secret.size() == kBack.size() && AsText(secret.Expose()) == kBack;
}

std::string Trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

bool Questions::Explained(const Page& page, const std::string& answer) {
  if (answer != "?") return false;
  dialogue_.Show(
      "\n" + WrapText(page.help.empty() ? "nothing more is known of this" : page.help, 2) + "\n");
  return true;
}

Result<std::optional<std::size_t>> Questions::Choose(const Page& page, std::size_t taken_by_enter) {
  dialogue_.Show(RenderPage(page) + std::string(kKeys));
  while (true) {
    ASSIGN_OR_RETURN(const std::string typed,
                     dialogue_.AskLine(fmt::format("number [{}]", taken_by_enter + 1)));
    const std::string answer = Trimmed(typed);
    if (answer.empty()) return taken_by_enter;
    if (answer == kBack) return std::nullopt;
    if (Explained(page, answer)) continue;
    std::size_t number = 0;
    const auto [end, error] = std::from_chars(answer.data(), answer.data() + answer.size(), number);
    const bool is_number = error == std::errc() && end == answer.data() + answer.size();
    if (is_number && number >= 1 && number <= page.choices.size()) return number - 1;
    dialogue_.Show(fmt::format("type a number from 1 to {}\n", page.choices.size()));
  }
}

Result<std::optional<std::string>> Questions::AskText(const Page& page, std::string_view label,
                                                      const std::string& taken_by_enter,
                                                      const CheckText& check) {
  dialogue_.Show(RenderPage(page) + std::string(kKeys));
  while (true) {
    std::string question(label);
    if (!taken_by_enter.empty()) question += " [" + taken_by_enter + "]";
    ASSIGN_OR_RETURN(const std::string typed, dialogue_.AskLine(question));
    std::string answer = Trimmed(typed);
    if (answer == kBack) return std::nullopt;
    if (Explained(page, answer)) continue;
    if (answer.empty()) answer = taken_by_enter;
    const std::string wrong = check(answer);
    if (wrong.empty()) return answer;
    dialogue_.Show(WrapText(wrong, 0));
  }
}

Result<bool> Questions::AskNewSecret(const Page& page, std::string_view label,
                                     SecretBytes& secret) {
  dialogue_.Show(RenderPage(page) + std::string(kKeys));
  while (true) {
    ASSIGN_OR_RETURN(SecretBytes first, dialogue_.AskSecret(label));
    if (IsBack(first)) return false;
    if (first.empty() && !secret.empty()) return true;
    if (first.empty()) continue;
    ASSIGN_OR_RETURN(const SecretBytes second,
                     dialogue_.AskSecret(std::string(label) + ", once more"));
    if (IsBack(second)) return false;
    if (first.EqualsConstantTime(second)) {
      secret = std::move(first);
      return true;
    }
    dialogue_.Show("the two differ: type it twice again\n");
  }
}

}  // namespace keyescrow::agent
