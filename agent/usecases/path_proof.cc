#include "agent/usecases/path_proof.h"

#include <algorithm>

#include "agent/audit/checkpoint.h"
#include "agent/audit/merkle.h"
#include "agent/usecases/event_order.h"

namespace keyescrow::agent {

Result<envelope::DrillCheckpoint> NewestCheckpoint(Agent* agent) {
  envelope::DrillCheckpoint checkpoint;
  checkpoint.origin = agent != nullptr ? agent->identity().origin : audit::kStatelessSource;
  checkpoint.root = audit::CompactRange().Root();
  if (agent == nullptr) return checkpoint;
  const auto note = agent->journal().LatestCheckpoint();
  if (!note) {
    if (note.error().code() == ErrorCode::kNotFound) return checkpoint;
    return note.error();
  }
  ASSIGN_OR_RETURN(const auto newest, audit::ParseCheckpoint(audit::NoteText(*note)));
  checkpoint.size = newest.size;
  checkpoint.root = newest.root;
  return checkpoint;
}

Result<audit::EventDrill> ProveOpened(const envelope::SealedEnvelope& sealed,
                                      const envelope::OpenedEnvelope& opened,
                                      const ProofRequest& request) {
  if (opened.drill_seed().empty()) {
    return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                 "the path was opened by a newer record of its recovery key than the envelope's "
                 "copy, whose drill key signs nothing any more",
                 "back the key up again: its envelope then has the newer record");
  }
  envelope::DrillStatement statement;
  statement.envelope_id = sealed.header().envelope_id;
  statement.path_id = opened.path_id();
  statement.envelope_hash = sealed.hash();
  statement.checkpoint = request.checkpoint;
  statement.challenge = request.challenge;
  statement.time = request.time;
  audit::EventDrill drill{
      request.checkpoint.size, request.checkpoint.root, request.time, request.challenge, {}};
  ASSIGN_OR_RETURN(drill.signature, envelope::SignDrill(statement, opened.drill_seed()));
  return drill;
}

bool TellsOfThePath(const Error& error) { return TellsOfThePath(ErrorCodeName(error.code())); }

bool IsOfThisHost(const Agent& agent, const envelope::PathRecord& path) {
  return std::ranges::all_of(path.factors, [&](const envelope::FactorRecord& factor) {
    const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
    return tpm == nullptr || tpm->host == agent.identity().host;
  });
}

Status RequirePin(const std::string& token_name, Secrets& secrets) {
  if (secrets.HasPin(token_name)) return Ok();
  return Error(ErrorCode::kSecretSourceMissing, Action::kFixInput,
               "no PIN was given for the token " + token_name,
               "add --pin-file " + token_name + "=FILE");
}

}  // namespace keyescrow::agent
