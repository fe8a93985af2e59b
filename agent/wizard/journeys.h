// The two journeys and what they share. For wizard.cc alone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/backup.h"
#include "agent/wizard/questions.h"
#include "agent/wizard/wizard.h"

namespace keyescrow::agent {

// Move: where a step leads. A step that has nothing to ask is skipped in either direction.
enum class Move : std::uint8_t { kNext, kBack, kSkip };

using Step = std::function<Result<Move>()>;

// WalkSteps goes through the steps, forth and back. It returns false where the first one was left
// backwards. Errors: the steps'.
Result<bool> WalkSteps(const std::vector<Step>& steps);

// AfterFailure: what a person wants after `error`; none of it is tried by itself.
enum class AfterFailure : std::uint8_t { kTryAgain, kGoBack, kLeave };
Result<AfterFailure> AskAfterFailure(Questions& questions, const Error& error,
                                     std::string_view again);

// BackupJourney and RestoreJourney return none where the person went back before the first page.
Result<std::optional<WizardOutcome>> BackupJourney(WizardTools& tools, Questions& questions);
Result<std::optional<WizardOutcome>> RestoreJourney(WizardTools& tools, Questions& questions);

// FileWrong and SinkWrong say what is wrong with a file that was typed, or "": it is none; a key
// cannot be written there.
std::string FileWrong(const std::string& answer);
std::string SinkWrong(const std::string& answer);
// KeyFileWrong says what is wrong with a file that holds a key, or, for a new one, is to be made.
std::string KeyFileWrong(const std::string& answer, bool is_new);

// AskUnlockFile asks for the file that opens a LUKS volume today, where `location` is one; `file`
// is cleared where it is none.
Result<Move> AskUnlockFile(Questions& questions, const std::string& title,
                           const std::string& location, std::string& file);

// InitPages makes this host's state. It returns null where the person went back.
Result<Agent*> InitPages(WizardTools& tools, Questions& questions);

// BackupDonePage: the receipt, what was proven, and what is left to do.
Page BackupDonePage(const std::string& command, const BackupRequest& request,
                    const BackupResult& result);

// AddTokenPages registers a token that is plugged in. It returns its name; none: went back.
Result<std::optional<std::string>> AddTokenPages(WizardTools& tools, Questions& questions,
                                                 Agent& agent);

// GuessedModule returns the PKCS#11 module that is likely meant: that of a registered token, else
// the first usual one that exists, else "".
std::string GuessedModule(Agent* agent);

}  // namespace keyescrow::agent
