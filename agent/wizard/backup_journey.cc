// A backup: which key, where it lives, which hardware, where a copy goes, the password, review.
#include <fmt/format.h>

#include <algorithm>

#include "agent/usecases/backup.h"
#include "agent/usecases/backup_plan.h"
#include "agent/wizard/command_text.h"
#include "agent/wizard/journeys.h"
#include "agent/wizard/wizard_secrets.h"

namespace keyescrow::agent {
namespace {

constexpr std::uint32_t kGeneratedBytes = 32;

std::string Joined(const std::vector<std::string>& texts, std::string_view between) {
  std::string out;
  for (const std::string& text : texts) {
    if (!out.empty()) out.append(between);
    out.append(text);
  }
  return out;
}

std::vector<std::string> SplitPaths(const std::string& text) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    std::string part = text.substr(begin, end - begin);
    const std::size_t first = part.find_first_not_of(' ');
    if (first != std::string::npos) {
      out.push_back(part.substr(first, part.find_last_not_of(' ') - first + 1));
    }
    begin = end + 1;
  }
  return out;
}

std::string PathsWrong(const std::string& answer) {
  const auto parsed = NeedsPassword(SplitPaths(answer));
  return parsed ? "" : "error: " + parsed.error().message();
}

Choice OfferChoice(const PathOffer& offer) {
  const std::string where = offer.token_away
                                ? "the token cannot be used now: " + offer.token_away->message()
                                : "the token is plugged in: proven at once";
  switch (offer.kind) {
    case PathOffer::Kind::kPolicy: return {"what the policy asks for", Joined(offer.paths, "; ")};
    case PathOffer::Kind::kDeclared: return {"what agent.toml declares", Joined(offer.paths, "; ")};
    case PathOffer::Kind::kToken: return {"token " + offer.token + " with a password", where};
    case PathOffer::Kind::kTokenAndTpm:
      return {"two ways in: token " + offer.token +
                  " with a password, and this host's TPM with the same password",
              where};
    case PathOffer::Kind::kTpm:
      return {"this host's TPM with a password",
              "opens on this host alone: when the host is gone, so is the key"};
  }
  return {};
}

bool IsOfPassword(const Error& error) {
  return error.code() == ErrorCode::kPasswordWeak || error.code() == ErrorCode::kPasswordInvalid;
}

class Journey {
 public:
  Journey(WizardTools& tools, Questions& questions) : tools_(tools), questions_(questions) {}

  Result<std::optional<WizardOutcome>> Run();

 private:
  Result<Move> AskInit();
  Result<Move> AskKey();
  Result<Move> AskKeyName();
  Result<Move> AskSource();
  Result<Move> AskUnlock();
  Result<Move> AskHardware();
  Result<Move> AskExpression();
  Result<Move> AskCopy();
  Result<Move> AskPassword();
  Result<Move> AskUnderstood();
  Result<Move> Review();
  bool HasPassword() const;

  WizardTools& tools_;
  Questions& questions_;
  Agent* agent_ = nullptr;
  // What was chosen, kept while a person goes back and forth.
  BackupRequest request_;
  bool other_key_ = false;
  std::size_t source_choice_ = 0;
  bool asks_expression_ = false;
  std::size_t hardware_choice_ = 0;
  std::string expression_;
  std::size_t copy_choice_ = 0;
  std::string copy_;
  std::vector<std::string> refused_because_;  // of the last password
  SecretBytes password_;
  bool understood_ = false;
  std::optional<WizardOutcome> outcome_;
};

bool Journey::HasPassword() const { return NeedsPassword(request_.paths).value_or(false); }

Result<Move> Journey::AskInit() {
  if (agent_ == nullptr) {
    ASSIGN_OR_RETURN(agent_, tools_.open_agent());
  }
  if (agent_ != nullptr) return Move::kSkip;
  ASSIGN_OR_RETURN(agent_, InitPages(tools_, questions_));
  return agent_ != nullptr ? Move::kNext : Move::kBack;
}

Result<Move> Journey::AskKey() {
  const auto& declared = tools_.environment->config->keys;
  if (declared.empty()) {
    other_key_ = true;
    return Move::kSkip;
  }
  Page page;
  page.title = "Back up: which key";
  page.paragraphs = {"These keys are declared on this host."};
  std::size_t taken = other_key_ ? declared.size() : 0;
  for (std::size_t index = 0; index < declared.size(); ++index) {
    page.choices.push_back({declared[index].name, "from " + declared[index].source});
    if (declared[index].name == request_.key_name) taken = index;
  }
  page.choices.push_back({"another key"});
  page.help =
      "A declared key is one that must be escrowed: 'keyescrow status' tells when it is not. "
      "'keyescrow key add' declares one.";
  ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, taken));
  if (!choice) return Move::kBack;
  other_key_ = *choice == declared.size();
  if (!other_key_) request_.key_name = declared[*choice].name;
  return Move::kNext;
}

Result<Move> Journey::AskKeyName() {
  if (!other_key_) return Move::kSkip;
  Page page;
  page.title = "Back up: the key's name";
  page.paragraphs = {
      "Under this name the key is restored. A host may have any number of keys, one for each thing "
      "that needs one: prod/db/main, prod/reports, backup/tapes."};
  page.help =
      "Letters, digits, '.', '_' and '-' in segments joined by '/'; at most 128 in all. A "
      "name that is escrowed already gets a new version, and the old one stays.";
  const auto check = [](const std::string& answer) -> std::string {
    return CheckKeyName(answer) ? "" : "that is not a key name: type ? to see what is";
  };
  ASSIGN_OR_RETURN(const auto name, questions_.AskText(page, "name", request_.key_name, check));
  if (!name) return Move::kBack;
  request_.key_name = *name;
  return Move::kNext;
}

Result<Move> Journey::AskSource() {
  if (const DeclaredKey* declared = tools_.environment->config->FindKey(request_.key_name)) {
    request_.source = declared->source;
    request_.generate_bytes = 0;
    request_.sink.clear();
    return Move::kSkip;
  }
  Page page;
  page.title = "Back up: where the key is";
  page.paragraphs = {"The key " + request_.key_name + " is"};
  page.choices = {
      {"in a file", "its bytes are read, and stay where they are"},
      {fmt::format("not made yet: make one of {} bytes", kGeneratedBytes),
       "it is escrowed and proven first, and only then written to a new file"},
  };
  page.help =
      "A key that a program prints, or that a LUKS volume holds, is escrowed with "
      "'keyescrow backup --from'.";
  while (true) {
    ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, source_choice_));
    if (!choice) return Move::kBack;
    source_choice_ = *choice;
    const bool make = source_choice_ == 1;
    Page file;
    file.title = make ? "Back up: the new key's file" : "Back up: the key's file";
    file.paragraphs = {make ? "The application will read its key from this file. It must not exist "
                              "yet."
                            : "1 byte to 1 MiB, as the application reads it."};
    file.help = "An absolute path is best: 'keyescrow status' looks there later.";
    const std::string& before = make ? request_.sink : request_.source;
    const auto wrong = [make](const std::string& text) { return KeyFileWrong(text, make); };
    ASSIGN_OR_RETURN(const auto answer, questions_.AskText(file, "file", before, wrong));
    if (!answer) continue;
    request_.source = make ? "" : *answer;
    request_.sink = make ? *answer : "";
    request_.generate_bytes = make ? kGeneratedBytes : 0;
    return Move::kNext;
  }
}

Result<Move> Journey::AskUnlock() {
  return AskUnlockFile(questions_, "Back up: what opens the volume", request_.source,
                       request_.luks_unlock_file);
}

Result<Move> Journey::AskHardware() {
  while (true) {
    tools_.progress->Step("looking for tokens and the tpm");
    ASSIGN_OR_RETURN(const auto offers, OfferPaths(*agent_, request_.key_name));
    tools_.progress->Pause();
    Page page;
    page.title = "Back up: which hardware";
    page.paragraphs = {"The password alone opens nothing: a piece of hardware is needed as well."};
    for (const PathOffer& offer : offers) page.choices.push_back(OfferChoice(offer));
    page.choices.push_back({"register a token that is plugged in"});
    page.choices.push_back({"something else", "type the recovery paths"});
    page.help =
        "A token can be carried to another host; a TPM cannot. Two ways in survive the loss "
        "of one of them.";
    ASSIGN_OR_RETURN(const auto choice,
                     questions_.Choose(page, std::min(hardware_choice_, page.choices.size() - 1)));
    if (!choice) return Move::kBack;
    if (*choice == offers.size()) {
      ASSIGN_OR_RETURN(const auto added, AddTokenPages(tools_, questions_, *agent_));
      continue;
    }
    hardware_choice_ = *choice;
    asks_expression_ = *choice > offers.size();
    if (!asks_expression_) request_.paths = offers[*choice].paths;
    return Move::kNext;
  }
}

Result<Move> Journey::AskExpression() {
  if (!asks_expression_) return Move::kSkip;
  Page page;
  page.title = "Back up: the recovery paths";
  page.paragraphs = {
      "Each path is one way in; all of its factors are needed. Several paths are "
      "separated by ';'.",
      "  password & token:ops; password & tpm"};
  page.help =
      "Factors: password, token:NAME, tpm, and others that 'keyescrow backup --help' names.";
  ASSIGN_OR_RETURN(const auto answer, questions_.AskText(page, "paths", expression_, PathsWrong));
  if (!answer) return Move::kBack;
  expression_ = *answer;
  request_.paths = SplitPaths(expression_);
  return Move::kNext;
}

Result<Move> Journey::AskCopy() {
  Page page;
  page.title = "Back up: where a copy goes";
  page.paragraphs = {
      "The escrow store of this host has it in any case. A copy in a file is what "
      "helps when this host is gone: on another disk, or on another server's share."};
  page.choices = {{"write a copy to a file", "it opens with the same password and hardware alone"},
                  {"no copy now", "'keyescrow export' writes one later"}};
  page.help =
      "The file has no secret in clear. Keep the agent's thumbprint with it: by that a new "
      "machine knows that it is genuine.";
  while (true) {
    ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, copy_choice_));
    if (!choice) return Move::kBack;
    copy_choice_ = *choice;
    request_.output.clear();
    if (copy_choice_ == 1) return Move::kNext;
    Page file;
    file.title = "Back up: the copy's file";
    file.paragraphs = {"Its name should end in .escrow. The receipt goes beside it."};
    file.help = "A folder on another disk, or a mounted share, survives this host's disk.";
    ASSIGN_OR_RETURN(const auto answer, questions_.AskText(file, "file", copy_, SinkWrong));
    if (!answer) continue;
    copy_ = *answer;
    request_.output = copy_;
    return Move::kNext;
  }
}

Result<Move> Journey::AskPassword() {
  if (!HasPassword()) return Move::kSkip;
  Page page;
  page.title = "Back up: the password";
  page.paragraphs = refused_because_;
  page.paragraphs.push_back(
      "You, or who restores the key in some years, will have to type it: several words are easier "
      "to keep than a jumble. It is typed twice, and not shown.");
  if (!password_.empty()) {
    page.paragraphs.push_back("Enter alone keeps the password that you typed before.");
  }
  page.help =
      "At least 8 characters where hardware stands beside it, and none of the passwords that "
      "everybody tries; a policy may ask for more.";
  ASSIGN_OR_RETURN(const bool typed, questions_.AskNewSecret(page, "password", password_));
  if (!typed) return Move::kBack;
  refused_because_.clear();
  Status good = CheckPasswordOf(*agent_, request_.key_name, request_.paths, password_);
  if (good) return Move::kNext;
  if (!IsOfPassword(good.error())) return std::move(good).error();
  password_ = SecretBytes();
  refused_because_ = ErrorText(good.error());
  return AskPassword();
}

Result<Move> Journey::AskUnderstood() {
  if (!HasPassword() || understood_) return Move::kSkip;
  Page page;
  page.title = "Back up: a lost password";
  page.paragraphs = {
      "A LOST PASSWORD CANNOT BE RECOVERED. Nobody has a way around it, and the makers "
      "of this program have none. Without it, and without another way in, the key is "
      "gone, and with it what it protects.",
      "Write it down and lock it away, apart from the hardware."};
  page.help = "A password manager of the team, or a sealed envelope in the safe, both do.";
  const auto check = [](const std::string& answer) -> std::string {
    return answer == "understood" ? "" : "type the word understood, or < to go back";
  };
  ASSIGN_OR_RETURN(const auto answer,
                   questions_.AskText(page, "type \"understood\" to go on", "", check));
  if (!answer) return Move::kBack;
  understood_ = true;
  return Move::kNext;
}

Result<Move> Journey::Review() {
  Page page;
  page.title = "Back up: review";
  page.paragraphs = {
      "  key          " + request_.key_name +
          (request_.generate_bytes > 0 ? fmt::format("\n  made new     {} bytes, then to {}",
                                                     request_.generate_bytes, request_.sink)
                                       : "\n  from         " + request_.source) +
          "\n  ways in      " + Joined(request_.paths, "\n               ") + "\n  copy         " +
          (request_.output.empty() ? "none" : request_.output),
      "The same without the wizard:", "  " + BackupCommand(tools_.command, request_)};
  page.choices = {{"back it up"}, {"go back and change something"}, {"leave"}};
  page.help =
      "The key is sealed, signed, stored and logged; then it is opened again by every way in "
      "whose hardware is here, which may ask for a PIN.";
  ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, 0));
  if (!choice || *choice == 1) return Move::kBack;
  if (*choice == 2) {
    outcome_ = WizardOutcome::kLeft;
    return Move::kNext;
  }
  while (true) {
    ASSIGN_OR_RETURN(Secrets* const typed, tools_.new_secrets());
    WizardSecrets secrets(*typed, password_);
    auto result = Backup(*agent_, request_, secrets, *tools_.progress);
    tools_.progress->Pause();
    if (result) {
      questions_.dialogue().Show(RenderPage(BackupDonePage(tools_.command, request_, *result)));
      outcome_ = result->Recoverable() && result->delivered.value_or(true)
                     ? WizardOutcome::kDone
                     : WizardOutcome::kFindings;
      return Move::kNext;
    }
    if (IsOfPassword(result.error())) {
      password_ = SecretBytes();
      refused_because_ = ErrorText(result.error());
      return Move::kBack;  // the page before this one that asks is the password's
    }
    if (result.error().code() == ErrorCode::kWrongPin) return std::move(result).error();
    ASSIGN_OR_RETURN(const AfterFailure after,
                     AskAfterFailure(questions_, result.error(), "try the same again"));
    if (after == AfterFailure::kLeave) return std::move(result).error();
    if (after == AfterFailure::kGoBack) return Move::kBack;
  }
}

Result<std::optional<WizardOutcome>> Journey::Run() {
  const std::vector<Step> steps = {
      [this] { return AskInit(); },       [this] { return AskKey(); },
      [this] { return AskKeyName(); },    [this] { return AskSource(); },
      [this] { return AskUnlock(); },     [this] { return AskHardware(); },
      [this] { return AskExpression(); }, [this] { return AskCopy(); },
      [this] { return AskPassword(); },   [this] { return AskUnderstood(); },
      [this] { return Review(); },
  };
  ASSIGN_OR_RETURN(const bool walked, WalkSteps(steps));
  if (!walked) return std::nullopt;
  return outcome_;
}

}  // namespace

Result<std::optional<WizardOutcome>> BackupJourney(WizardTools& tools, Questions& questions) {
  return Journey(tools, questions).Run();
}

}  // namespace keyescrow::agent
