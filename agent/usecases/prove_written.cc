#include "agent/usecases/prove_written.h"

#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/path_choice.h"

namespace keyescrow::agent {
namespace {

// CanTry: the hardware is here and its PINs can be had.
Status CanTry(const TrialContext& context, PathOpener& opener, std::size_t index) {
  const envelope::PathRecord& path = context.sealed->header().paths[index];
  if (path.recovery_key) {
    return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                 "a recovery key is not opened here", "prove it with 'keyescrow drill'");
  }
  // Officers whose tokens are still here prove their path; nobody is waited for again.
  if (CeremonyDesk* const desk = context.secrets->Desk()) desk->SetWaits(false);
  RETURN_IF_ERROR(opener.Present(index));
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto token = IdentityOf(factor)) {
      RETURN_IF_ERROR(RequirePin(*token->token, *context.secrets));
    }
  }
  return Ok();
}

}  // namespace

bool PathTrial::NotAtHand() const {
  return error && (MayTryAnotherPath(*error) || error->code() == ErrorCode::kUnsupportedHere ||
                   error->code() == ErrorCode::kSecretSourceMissing ||
                   error->code() == ErrorCode::kFactorMissing);
}

Result<PathTrial> TryPath(const TrialContext& context, PathOpener& opener, std::size_t index) {
  PathTrial trial;
  if (Status possible = CanTry(context, opener, index); !possible) {
    trial.error = possible.error();
    return trial;
  }
  auto opened = opener.Open(index);
  if (!opened) {
    trial.error = std::move(opened).error();
    return trial;
  }
  if (!opened->content().EqualsConstantTime(*context.content)) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "the path " + context.sealed->header().paths[index].id +
                     " gives other bytes than those that are escrowed",
                 "keep the key where it is, and report this");
  }
  ASSIGN_OR_RETURN(trial.drill,
                   ProveOpened(*context.sealed, *opened,
                               {context.checkpoint, std::nullopt, context.agent->Now()}));
  return trial;
}

void RecordTrial(const TrialContext& context, std::size_t index, const audit::EventDrill& drill,
                 const std::string& proven_by, std::vector<audit::Event>& events,
                 store::Change& change) {
  const envelope::Header& header = context.sealed->header();
  const envelope::PathRecord& path = header.paths[index];
  audit::Event event;
  event.type = audit::EventType::kDrillPassed;
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope =
      audit::EventEnvelope{header.envelope_id, header.revision, context.sealed->hash()};
  event.paths = DescribePaths({&path});
  event.drill = drill;
  store::PathOutcome outcome{header.key_name,
                             header.key_version,
                             header.revision,
                             path.id,
                             context.agent->Now(),
                             true,
                             ""};
  outcome.proven_by = proven_by;
  outcome.event_index = events.size();
  change.path_outcomes.push_back(std::move(outcome));
  events.push_back(std::move(event));
}

}  // namespace keyescrow::agent
