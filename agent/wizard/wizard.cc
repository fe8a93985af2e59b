#include "agent/wizard/wizard.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "agent/key_locations/key_location.h"
#include "agent/wizard/journeys.h"

namespace keyescrow::agent {

Result<bool> WalkSteps(const std::vector<Step>& steps) {
  std::size_t index = 0;
  bool forward = true;
  while (index < steps.size()) {
    ASSIGN_OR_RETURN(const Move move, steps[index]());
    if (move != Move::kSkip) forward = move == Move::kNext;
    if (forward) {
      ++index;
    } else if (index == 0) {
      return false;
    } else {
      --index;
    }
  }
  return true;
}

std::string FileWrong(const std::string& answer) {
  const auto location = ParseLocation(answer);
  if (!location) return "error: " + location.error().message();
  return (*location)->FilePath().empty() ? "name a file" : "";
}

std::string SinkWrong(const std::string& answer) {
  if (std::string wrong = FileWrong(answer); !wrong.empty()) return wrong;
  const Status writable = (*ParseLocation(answer))->CheckWritable();
  return writable ? "" : "error: " + writable.error().message();
}

Result<Move> AskUnlockFile(Questions& questions, const std::string& title,
                           const std::string& location, std::string& file) {
  if (!location.starts_with("luks:")) {
    file.clear();
    return Move::kSkip;
  }
  Page page;
  page.title = title;
  page.paragraphs = {location +
                     " is a LUKS volume. Name a file that holds the passphrase of one of its "
                     "keyslots, or its key file."};
  page.help =
      "It is read, and neither copied nor changed. On Debian /etc/crypttab names key files.";
  const auto check = [](const std::string& answer) -> std::string {
    return access(answer.c_str(), R_OK) == 0 ? "" : "there is no such file, or it cannot be read";
  };
  ASSIGN_OR_RETURN(const auto answer, questions.AskText(page, "file", file, check));
  if (!answer) return Move::kBack;
  file = *answer;
  return Move::kNext;
}

std::string KeyFileWrong(const std::string& answer, bool is_new) {
  if (std::string wrong = is_new ? SinkWrong(answer) : FileWrong(answer); !wrong.empty()) {
    return wrong;
  }
  const std::string path = (*ParseLocation(answer))->FilePath();
  struct stat status {};
  if (is_new) {
    return lstat(path.c_str(), &status) != 0
               ? ""
               : "error: " + path + " exists: a new key does not replace what is there";
  }
  if (access(path.c_str(), R_OK) == 0) return "";
  return "error: cannot read " + path + ": " + std::strerror(errno);
}

Result<AfterFailure> AskAfterFailure(Questions& questions, const Error& error,
                                     std::string_view again) {
  Page page;
  page.title = "It did not work";
  page.paragraphs = ErrorText(error);
  page.choices = {{"go back and change something"}, {std::string(again)}, {"leave"}};
  page.help =
      "Nothing is tried again by itself: a token and a TPM count wrong tries. Read the hint first.";
  ASSIGN_OR_RETURN(const auto choice, questions.Choose(page, 0));
  if (choice == std::size_t{1}) return AfterFailure::kTryAgain;
  return choice == std::size_t{2} ? AfterFailure::kLeave : AfterFailure::kGoBack;
}

Result<WizardOutcome> LeadThrough(WizardTools& tools) {
  Questions questions(*tools.dialogue);
  Page page;
  page.title = "keyescrow";
  page.paragraphs = {
      "A key that an application depends on is kept so that the right people can recover it: with "
      "a "
      "password AND a piece of hardware, a token or this host's TPM. Neither alone opens anything; "
      "where one of the two is lost, only another way in helps.",
      "No key is escrowed or restored before the page \"Review\", where you see all that you "
      "chose."};
  page.choices = {
      {"Back up a key", "escrow it, and prove at once that it can be recovered"},
      {"Restore a key", "from this host's store, or from an .escrow file of another host"},
      {"Leave"},
  };
  page.help =
      "A backup stores the key in this host's escrow store and, if you like, in a file for the "
      "safe. "
      "A restore gives it back, here or on a new machine.";
  while (true) {
    ASSIGN_OR_RETURN(const auto choice, questions.Choose(page, 0));
    if (!choice || *choice == 2) return WizardOutcome::kLeft;
    ASSIGN_OR_RETURN(const auto outcome, *choice == 0 ? BackupJourney(tools, questions)
                                                      : RestoreJourney(tools, questions));
    if (outcome) return *outcome;
  }
}

}  // namespace keyescrow::agent
