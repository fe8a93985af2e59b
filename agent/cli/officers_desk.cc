#include "agent/cli/officers_desk.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/cli/patient_prompt.h"
#include "agent/cli/terminal_text.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kRemedy = "run the command on a terminal";

std::string Shares(std::uint32_t count) {
  return count == 1 ? "1 share" : fmt::format("{} shares", count);
}

std::string StateText(const OfficerView& officer) {
  switch (officer.state) {
    case OfficerState::kAway:
      return officer.why.empty() ? "waiting for the token" : "not usable: " + officer.why;
    case OfficerState::kHere: return "token is here";
    case OfficerState::kNotNow: return fmt::format("stood back: type {} to go on", officer.index);
    case OfficerState::kRefused:
      return fmt::format("was refused: type {} to try again", officer.index);
    case OfficerState::kBadShare: return "has a bad share: cannot help";
    case OfficerState::kGiven: return "share given";
  }
  return "";
}

// Missing lists those who may still give a share.
std::string Missing(const CeremonyView& view) {
  std::string names;
  for (const OfficerView& officer : view.officers) {
    if (officer.state == OfficerState::kGiven || officer.state == OfficerState::kBadShare) continue;
    names += (names.empty() ? "" : ", ") + officer.name;
  }
  return names;
}

std::string_view Trimmed(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

std::vector<std::string> CeremonyLines(const CeremonyView& view) {
  const std::uint32_t num_given = view.NumGiven();
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{} of {} shares are there, {} more needed:", num_given,
                              view.threshold, view.threshold - num_given));
  std::size_t width = 0;
  for (const OfficerView& officer : view.officers) width = std::max(width, officer.name.size());
  for (const OfficerView& officer : view.officers) {
    lines.push_back(
        fmt::format("  {:>2}  {:<{}}  {}", officer.index, officer.name, width, StateText(officer)));
  }
  return lines;
}

Result<SecretBytes> OfficersDesk::Password(std::string_view path_id, std::string_view purpose) {
  if (!ask_password_) return inner_.Password(path_id, purpose);
  progress_.Pause();
  return prompt_.Ask(fmt::format("password of path '{}' {}", path_id, purpose), kRemedy);
}

Result<SecretBytes> OfficersDesk::AskPin(const envelope::PinRequest& request) {
  const std::string& name = request.token_name.empty() ? request.token_label : request.token_name;
  if (!typed_pins_.contains(name)) return inner_.Pins().AskPin(request);
  progress_.Pause();
  auto pin = prompt_.Ask(fmt::format("PIN of token '{}'{}", name,
                                     request.final_try ? " (the last try before it locks)" : ""),
                         kRemedy);
  if (pin || WasInterrupted(pin.error())) return pin;
  return Error(ErrorCode::kPinEmpty, Action::kReauthenticate,
               "the PIN of token '" + name + "' was not typed; nothing was sent",
               "type the token's user PIN; an empty one would use up a try");
}

void OfficersDesk::Open(const CeremonyView& view) {
  interrupts_ = std::make_unique<KeepInterrupts>();
  prompt_.Tell("");
  prompt_.Tell(fmt::format("officers' shares {} by the path '{}'", view.purpose, view.path_id));
  prompt_.Tell(
      fmt::format("any {} of these {} officers are needed, in any order, each with token "
                  "and PIN",
                  view.threshold, view.officers.size()));
  prompt_.Tell("Enter alone at a PIN means: not now. Ctrl-C asks before anything is lost.");
}

void OfficersDesk::Close(const CeremonyView& view) {
  interrupts_.reset();
  if (view.NumGiven() == view.threshold) prompt_.Tell("");
}

void OfficersDesk::Show(const CeremonyView& view) {
  progress_.Pause();
  prompt_.Tell("");
  for (const std::string& line : CeremonyLines(view)) prompt_.Tell(line);
}

void OfficersDesk::Greet(const OfficerView& officer) {
  progress_.Pause();
  prompt_.Tell("");
  prompt_.Tell(officer.name + ": your token is here");
}

void OfficersDesk::Thank(const OfficerView& officer, const CeremonyView& view) {
  progress_.Pause();
  const std::uint32_t num_needed = view.threshold - view.NumGiven();
  prompt_.Tell(officer.name + ": your share is given and good; you can take the token out");
  if (num_needed == 0) prompt_.Tell(fmt::format("{} are there: enough", Shares(view.threshold)));
}

void OfficersDesk::Refuse(const OfficerView& officer) {
  progress_.Pause();
  if (officer.state == OfficerState::kNotNow) {
    prompt_.Tell(officer.name + ": not now; no PIN was sent");
    return;
  }
  prompt_.Tell(officer.name + ": " + officer.why);
  if (officer.state == OfficerState::kBadShare) {
    prompt_.Tell("the share of " + officer.name + " is bad and was skipped: others can serve");
  }
}

Result<DeskAnswer> OfficersDesk::Wait(const CeremonyView& view, const std::function<bool()>& look) {
  prompt_.Tell("insert the token of one of: " + Missing(view) + "; it is noticed by itself");
  while (true) {
    const auto line = AskLinePatiently(
        kTerminal, "or type a number to call an officer, Enter to look again, q to leave", look);
    if (!line) {
      if (WasInterrupted(line.error())) return DeskAnswer{DeskAnswer::Kind::kLeave, 0};
      return line.error();
    }
    if (!*line) {
      prompt_.Tell("");
      return DeskAnswer{DeskAnswer::Kind::kIdle, 0};
    }
    const std::string_view answer = Trimmed(AsText((*line)->Expose()));
    if (answer.empty()) return DeskAnswer{DeskAnswer::Kind::kLook, 0};
    if (answer == "q" || answer == "quit") return DeskAnswer{DeskAnswer::Kind::kLeave, 0};
    std::size_t i = 0;
    for (; i < view.officers.size(); ++i) {
      const OfficerView& officer = view.officers[i];
      if (answer != officer.name && answer != std::to_string(officer.index)) continue;
      if (officer.state != OfficerState::kGiven && officer.state != OfficerState::kBadShare) {
        return DeskAnswer{DeskAnswer::Kind::kOfficer, i};
      }
      prompt_.Tell(officer.name + ": " + StateText(officer));
      break;
    }
    if (i == view.officers.size()) {
      // Of whoever types a PIN too early no word is repeated, or kept.
      prompt_.Tell("no officer of this path has that name or number");
      prompt_.Tell("if it was a PIN, have it changed: it stands on this screen");
    }
  }
}

bool OfficersDesk::IsYes(std::string_view question) {
  const auto answer = prompt_.AskLine(question, kRemedy);
  return answer && (Trimmed(*answer) == "y" || Trimmed(*answer) == "yes");
}

bool OfficersDesk::TryAgain(const OfficerView& officer, const Error& error, bool is_last_try) {
  progress_.Pause();
  prompt_.Tell(officer.name + ": " +
               (error.code() == ErrorCode::kWrongPin
                    ? "the token rejected the PIN; one try was used, and nothing was retried"
                    : error.message()));
  prompt_.Tell("nobody else's share is lost");
  if (!is_last_try) return IsYes(officer.name + ", type another PIN now? [y/N]");
  prompt_.Tell("one more wrong PIN locks this token; the other officers may do without it");
  const auto answer =
      prompt_.AskLine("type \"last try\" to spend it, Enter to leave it alone", kRemedy);
  return answer && Trimmed(*answer) == "last try";
}

bool OfficersDesk::Leave(const CeremonyView& view) {
  prompt_.Tell("");
  prompt_.Tell("nothing was released yet");
  if (view.NumGiven() > 0) {
    std::string names;
    for (const OfficerView& officer : view.officers) {
      if (officer.state != OfficerState::kGiven) continue;
      names += (names.empty() ? "" : ", ") + officer.name;
    }
    prompt_.Tell(fmt::format("leaving forgets {}: {} would have to come again",
                             Shares(view.NumGiven()), names));
    prompt_.Tell("to pause: Ctrl-Z, and later fg; the shares stay in locked memory meanwhile");
  }
  const auto answer = prompt_.AskLine("type \"leave\" to leave, Enter to go on", kRemedy);
  if (!answer) return !WasInterrupted(answer.error());  // nobody is there any more
  return Trimmed(*answer) == "leave";
}

bool OfficersDesk::PasswordAgain(const Error& error, bool is_counted) {
  progress_.Pause();
  prompt_.Tell(error.message());
  prompt_.Tell("the officers' shares are kept");
  if (is_counted) prompt_.Tell("the tpm counts wrong passwords, and locks after some");
  ask_password_ = IsYes("type the password again? [y/N]");
  return ask_password_;
}

}  // namespace keyescrow::agent
