// The wizard: a backup or a restore, one question a page, for who does it once a year.
//
// It decides nothing by itself: each journey ends in the request of a use case, shown as the equal
// command line before it is carried out. No key is escrowed or restored before
// the page "Review".
#pragma once

#include <functional>
#include <string>

#include "agent/usecases/agent.h"
#include "agent/usecases/secrets.h"
#include "agent/wizard/dialogue.h"

namespace keyescrow::agent {

// WizardTools: what the journeys work with. All pointers outlive them.
struct WizardTools {
  Dialogue* dialogue = nullptr;
  const Environment* environment = nullptr;
  Progress* progress = nullptr;
  // open_agent returns null where this host has no state. Errors: as Session::OpenAgentFor.
  std::function<Result<Agent*>()> open_agent;
  // new_secrets returns sources that forgot what was typed before, for the next attempt.
  std::function<Result<Secrets*>()> new_secrets;
  std::string command = "keyescrow";  // as equal command lines begin
};

enum class WizardOutcome : std::uint8_t {
  kDone,
  kFindings,  // done, and something is left to do: it was shown
  kLeft,      // the person left; nothing was done
};

// LeadThrough leads through a journey. Errors: the dialogue's; the use case's, where the person
// left after it had failed.
Result<WizardOutcome> LeadThrough(WizardTools& tools);

}  // namespace keyescrow::agent
