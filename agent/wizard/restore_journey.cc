// A restore: which key or file, who vouches for it, by which path, where to, why, review.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "agent/usecases/declared_sink.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/restore.h"
#include "agent/wizard/command_text.h"
#include "agent/wizard/journeys.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxListed = 15;

// AsFile has what was typed for a file looked up as one: a key of the store may be called alike.
std::string AsFile(const std::string& answer) {
  return LooksLikeFile(answer) ? answer : "./" + answer;
}

class Journey {
 public:
  Journey(WizardTools& tools, Questions& questions) : tools_(tools), questions_(questions) {}

  Result<std::optional<WizardOutcome>> Run();

 private:
  Result<Move> AskKey();
  Result<Move> AskFile();
  Result<Move> AskAgent();
  Result<Move> AskModule();
  Result<Move> AskPath();
  Result<Move> AskSink();
  Result<Move> AskUnlock();
  Result<Move> AskReason();
  Result<Move> Review();
  // Look reads the envelope and probes its paths. Errors: envelopes'.
  Status Look();
  // AskReplace: another key stands at the destination.
  Result<Move> AskReplace(const Error& error);
  void ShowDone(const RestoreResult& result) const;

  WizardTools& tools_;
  Questions& questions_;
  Agent* agent_ = nullptr;
  std::vector<KeyView> keys_;
  bool from_file_ = false;
  std::string file_;  // as it was typed
  RestoreRequest request_;
  std::string agent_thumbprint_;  // of the envelope that was looked at
  bool agent_known_ = true;
  bool needs_module_ = false;
  std::optional<KeyView> view_;
  std::string sink_;
  std::optional<WizardOutcome> outcome_;
};

Status Journey::Look() {
  ASSIGN_OR_RETURN(const EnvelopeSource source,
                   FindEnvelope(agent_, request_.name_or_file, std::nullopt));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(agent_, request_.trusted_agent, true));
  ASSIGN_OR_RETURN(Secrets* const secrets, tools_.new_secrets());
  PathOpenOptions probe;
  probe.devices = tools_.environment->devices;
  probe.secrets = secrets;
  probe.progress = tools_.progress;
  probe.store = agent_ != nullptr ? &agent_->store() : nullptr;
  probe.module = request_.module;
  tools_.progress->Step("looking which paths can be opened here");
  auto view = ShowEnvelope(agent_, source, trust, &probe);
  tools_.progress->Pause();
  if (!view) return std::move(view).error();
  view_ = std::move(*view);
  agent_known_ = view_->agent_trusted;
  agent_thumbprint_ = view_->agent;
  needs_module_ = std::ranges::any_of(view_->paths, [](const PathView& path) {
    return path.expression.find("token:") != std::string::npos && !path.openable.value_or(false);
  });
  return Ok();
}

Result<Move> Journey::AskKey() {
  ASSIGN_OR_RETURN(agent_, tools_.open_agent());
  if (agent_ != nullptr) {
    ASSIGN_OR_RETURN(keys_, ListKeys(*agent_));
  }
  if (keys_.empty()) {
    from_file_ = true;
    return Move::kSkip;
  }
  Page page;
  page.title = "Restore: which key";
  page.paragraphs = {"This host's store has"};
  const std::size_t num_listed = std::min(keys_.size(), kMaxListed);
  std::size_t taken = 0;
  for (std::size_t index = 0; index < num_listed; ++index) {
    const KeyView& key = keys_[index];
    page.choices.push_back({key.name, fmt::format("version {}, of {}", key.version, key.updated)});
    if (key.name == request_.name_or_file) taken = index;
  }
  page.choices.push_back({"a key from an .escrow file"});
  if (from_file_) taken = num_listed;
  if (keys_.size() > num_listed) {
    page.choices.push_back({fmt::format("another of the {} keys: type its name", keys_.size())});
  }
  page.help = "The newest version is restored. An older one: 'keyescrow restore NAME --version N'.";
  ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, taken));
  if (!choice) return Move::kBack;
  from_file_ = *choice == num_listed;
  if (*choice < num_listed) request_.name_or_file = keys_[*choice].name;
  if (*choice > num_listed) {
    Page name;
    name.title = "Restore: the key's name";
    const auto check = [this](const std::string& answer) -> std::string {
      const bool known =
          std::ranges::any_of(keys_, [&](const KeyView& key) { return key.name == answer; });
      return known ? "" : "no key of that name is escrowed here";
    };
    ASSIGN_OR_RETURN(const auto answer,
                     questions_.AskText(name, "name", request_.name_or_file, check));
    if (!answer) return Move::kBack;
    request_.name_or_file = *answer;
  }
  if (from_file_) return Move::kNext;
  request_.trusted_agent.clear();  // that was a file's
  RETURN_IF_ERROR(Look());
  return Move::kNext;
}

Result<Move> Journey::AskFile() {
  if (!from_file_) return Move::kSkip;
  Page page;
  page.title = "Restore: the .escrow file";
  page.paragraphs = {
      "A copy that 'keyescrow backup' or 'keyescrow export' wrote, from a disk, a share "
      "or the safe."};
  page.help =
      "It needs no state and no configuration on this machine: the password, the hardware "
      "and this program are enough.";
  const auto check = [this](const std::string& answer) -> std::string {
    request_.name_or_file = AsFile(answer);
    request_.trusted_agent.clear();
    const Status looked = Look();
    return looked ? "" : "error: " + looked.error().message();
  };
  ASSIGN_OR_RETURN(const auto answer, questions_.AskText(page, "file", file_, check));
  if (!answer) return Move::kBack;
  file_ = *answer;
  return Move::kNext;
}

Result<Move> Journey::AskAgent() {
  if (agent_known_ && request_.trusted_agent.empty()) return Move::kSkip;
  Page page;
  page.title = "Restore: who made this file";
  page.paragraphs = {
      "The file says that it holds the key " + view_->name + " of the host " + view_->host +
          ". This machine does not know the agent that signed it: anybody could have made it.",
      "Type the agent's thumbprint from where you keep it: 'keyescrow init' and every backup "
      "printed it, and the recovery sheet has it. Do not copy it from the file."};
  page.help =
      "43 letters, digits, '-' and '_'. Without it the key's origin is unproven: 'keyescrow "
      "restore --accept-unknown-agent' tells what that means.";
  const auto check = [this](const std::string& answer) -> std::string {
    if (answer != agent_thumbprint_) {
      return "that is not the agent that signed this file: do not use it, or type the thumbprint "
             "again";
    }
    request_.trusted_agent = answer;
    const Status looked = Look();
    return looked ? "" : "error: " + looked.error().message();
  };
  ASSIGN_OR_RETURN(const auto answer,
                   questions_.AskText(page, "thumbprint", request_.trusted_agent, check));
  return answer ? Move::kNext : Move::kBack;
}

Result<Move> Journey::AskModule() {
  if (agent_ != nullptr || !needs_module_) return Move::kSkip;
  Page page;
  page.title = "Restore: the token's module";
  page.paragraphs = {
      "A path of this key needs a token, which is spoken to through a PKCS#11 module. "
      "Plug the token in, then name the module."};
  page.help = "OpenSC's module speaks to most smart cards and YubiKeys.";
  const std::string guess = request_.module.empty() ? GuessedModule(agent_) : request_.module;
  const auto check = [this](const std::string& answer) -> std::string {
    if (access(answer.c_str(), R_OK) != 0) return "there is no such file, or it cannot be read";
    request_.module = answer;
    const Status looked = Look();
    return looked ? "" : "error: " + looked.error().message();
  };
  ASSIGN_OR_RETURN(const auto answer, questions_.AskText(page, "module", guess, check));
  return answer ? Move::kNext : Move::kBack;
}

Result<Move> Journey::AskPath() {
  Page page;
  page.title = "Restore: which way in";
  page.paragraphs = {"All factors of one path are needed."};
  std::size_t taken = view_->paths.size();
  for (std::size_t index = 0; index < view_->paths.size(); ++index) {
    const PathView& path = view_->paths[index];
    const bool here = path.openable.value_or(false);
    const bool officers = path.expression.find(" of (") != std::string::npos;
    const std::string now = here       ? "its hardware is here"
                            : officers ? "its officers come one after another, with their tokens"
                            : path.why_not.empty() ? "cannot be opened now"
                                                   : "cannot be opened now: " + path.why_not;
    page.choices.push_back({path.id + ": " + path.expression, now});
    const bool chosen = path.id == request_.via;
    if (chosen || (here && taken == view_->paths.size())) taken = index;
  }
  page.help = "Plug a token in and come back to this page with <, then forth again, to look anew.";
  ASSIGN_OR_RETURN(const auto choice,
                   questions_.Choose(page, taken == view_->paths.size() ? 0 : taken));
  if (!choice) return Move::kBack;
  request_.via = view_->paths[*choice].id;
  return Move::kNext;
}

Result<Move> Journey::AskSink() {
  Page page;
  page.title = "Restore: where to";
  page.paragraphs = {
      "A file gets the key whole or not at all. Another key that stands there is "
      "left alone: you are asked."};
  page.help = "A new file gets mode 0600; one that exists keeps its owner and mode.";
  if (sink_.empty() && TakesKeys(view_->source)) sink_ = view_->source;
  ASSIGN_OR_RETURN(const auto answer, questions_.AskText(page, "file", sink_, SinkWrong));
  if (!answer) return Move::kBack;
  if (*answer != sink_) request_.replace = false;
  sink_ = *answer;
  request_.sink = sink_;
  return Move::kNext;
}

Result<Move> Journey::AskUnlock() {
  return AskUnlockFile(questions_, "Restore: what opens the volume", request_.sink,
                       request_.luks_unlock_file);
}

Result<Move> Journey::AskReason() {
  Page page;
  page.title = "Restore: why";
  page.paragraphs = {
      "The audit log keeps it beside your name. A policy may demand it; else Enter "
      "leaves it out."};
  page.help = "A ticket's number goes with 'keyescrow restore --ticket'.";
  ASSIGN_OR_RETURN(const auto answer, questions_.AskText(page, "reason", request_.reason,
                                                         [](const std::string&) { return ""; }));
  if (!answer) return Move::kBack;
  request_.reason = *answer;
  return Move::kNext;
}

Result<Move> Journey::AskReplace(const Error& error) {
  Page page;
  page.title = "Restore: another key stands there";
  page.paragraphs = ErrorText(error);
  page.choices = {{"choose another place"},
                  {"put the old one aside and replace it",
                   "it becomes " + request_.sink + ".keyescrow-previous"}};
  page.help = "Nothing is overwritten: the old key stays beside the new one until you discard it.";
  ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, 0));
  if (!choice || *choice == 0) return Move::kBack;
  request_.replace = true;
  return Move::kNext;
}

Result<Move> Journey::Review() {
  Page page;
  page.title = "Restore: review";
  page.paragraphs = {
      fmt::format("  key          {} version {}, of the host {}", view_->name, view_->version,
                  view_->host) +
          "\n  from         " + (from_file_ ? request_.name_or_file : "this host's store") +
          "\n  way in       " + request_.via + "\n  to           " + request_.sink +
          (request_.replace ? " (what stands there is put aside)" : "") + "\n  why          " +
          (request_.reason.empty() ? "not said" : request_.reason),
      "The same without the wizard:", "  " + RestoreCommand(tools_.command, request_)};
  page.choices = {{"restore it"}, {"go back and change something"}, {"leave"}};
  page.help =
      "The attempt is logged before anything is opened. You are asked for the password and "
      "the token's PIN; neither is tried twice.";
  ASSIGN_OR_RETURN(const auto choice, questions_.Choose(page, 0));
  if (!choice || *choice == 1) return Move::kBack;
  if (*choice == 2) {
    outcome_ = WizardOutcome::kLeft;
    return Move::kNext;
  }
  while (true) {
    ASSIGN_OR_RETURN(Secrets* const secrets, tools_.new_secrets());
    auto result = Restore(*tools_.environment, agent_, request_, *secrets, *tools_.progress);
    tools_.progress->Pause();
    if (result) {
      ShowDone(*result);
      outcome_ = result->outcome_logged ? WizardOutcome::kDone : WizardOutcome::kFindings;
      return Move::kNext;
    }
    if (result.error().code() == ErrorCode::kDestinationOtherKey) {
      ASSIGN_OR_RETURN(const Move move, AskReplace(result.error()));
      if (move == Move::kBack) return Move::kBack;
      continue;
    }
    // A PIN that is kept in a file would be sent again without having been typed.
    if (result.error().code() == ErrorCode::kWrongPin) return std::move(result).error();
    ASSIGN_OR_RETURN(const AfterFailure after,
                     AskAfterFailure(questions_, result.error(), "type it again"));
    if (after == AfterFailure::kLeave) return std::move(result).error();
    if (after == AfterFailure::kGoBack) return Move::kBack;
  }
}

void Journey::ShowDone(const RestoreResult& result) const {
  Page page;
  page.title = "Done";
  page.paragraphs = {result.already_same
                         ? fmt::format("{} holds {} version {} already.", result.sink,
                                       result.key_name, result.key_version)
                         : fmt::format("{} version {} is restored to {}: {} bytes.",
                                       result.key_name, result.key_version, result.sink,
                                       result.size_bytes)};
  if (!result.previous_path.empty()) {
    // Without a state nothing remembers where the old key lies, nor knows whether it is escrowed.
    const bool is_known = agent_ != nullptr && result.event_file.empty();
    page.paragraphs.push_back("The key that stood there is now " + result.previous_path +
                              (is_known
                                   ? ". Once the application runs, discard it:"
                                   : ". Nothing here knows whether it is escrowed. Once the "
                                     "application runs, and nobody needs that key, remove it:"));
    page.paragraphs.push_back(is_known ? "  " + tools_.command + " restore " +
                                             ShellWord(result.key_name) +
                                             " --discard-previous --to " + ShellWord(result.sink)
                                       : "  rm " + ShellWord(result.previous_path));
  }
  if (!result.event_file.empty()) {
    page.paragraphs.push_back("What was done stands in " + result.event_file +
                              ". On the agent's host, add it to the log:");
    page.paragraphs.push_back("  keyescrow import-event " + ShellWord(result.event_file));
  }
  for (const std::string& finding : result.findings) {
    page.paragraphs.push_back("warning: " + finding);
  }
  page.paragraphs.push_back("The same without the wizard:");
  page.paragraphs.push_back("  " + RestoreCommand(tools_.command, request_));
  questions_.dialogue().Show(RenderPage(page));
}

Result<std::optional<WizardOutcome>> Journey::Run() {
  const std::vector<Step> steps = {
      [this] { return AskKey(); },    [this] { return AskFile(); },   [this] { return AskAgent(); },
      [this] { return AskModule(); }, [this] { return AskPath(); },   [this] { return AskSink(); },
      [this] { return AskUnlock(); }, [this] { return AskReason(); }, [this] { return Review(); },
  };
  ASSIGN_OR_RETURN(const bool walked, WalkSteps(steps));
  if (!walked) return std::nullopt;
  return outcome_;
}

}  // namespace

Result<std::optional<WizardOutcome>> RestoreJourney(WizardTools& tools, Questions& questions) {
  return Journey(tools, questions).Run();
}

}  // namespace keyescrow::agent
