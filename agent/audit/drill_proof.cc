#include "agent/audit/drill_proof.h"

namespace keyescrow::agent::audit {
namespace {

Error Invalid(std::string what) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
               "the drill's proof does not hold: " + std::move(what),
               "run 'keyescrow drill' again, and compare the log with a copy");
}

}  // namespace

Result<envelope::DrillStatement> DrillStatementOf(const Event& event) {
  if (!event.drill || !event.envelope || event.paths.size() != 1) {
    return Invalid("the entry has no signed statement of one path");
  }
  envelope::DrillStatement statement;
  statement.envelope_id = event.envelope->id;
  statement.path_id = event.paths.front().id;
  statement.envelope_hash = event.envelope->sha256;
  statement.checkpoint = {event.source, event.drill->size, event.drill->root};
  statement.challenge = event.drill->challenge;
  statement.time = event.drill->time;
  return statement;
}

Status VerifyDrillProof(const Event& event, const Bytes32& drill_key) {
  ASSIGN_OR_RETURN(const auto statement, DrillStatementOf(event));
  return envelope::VerifyDrill(statement, event.drill->signature, drill_key);
}

Status VerifyDrillProof(const Event& event, const envelope::Header& header,
                        const Bytes32& envelope_hash) {
  ASSIGN_OR_RETURN(const auto statement, DrillStatementOf(event));
  if (event.outcome != Outcome::kSuccess) return Invalid("the entry does not tell of a success");
  const bool same_key =
      event.key && event.key->name == header.key_name && event.key->version == header.key_version;
  if (!same_key || event.envelope->revision != header.revision ||
      statement.envelope_id != header.envelope_id || statement.envelope_hash != envelope_hash) {
    return Invalid("the entry is about another envelope");
  }
  const envelope::PathRecord* path = header.FindPath(statement.path_id);
  if (path == nullptr) return Invalid("the envelope has no path " + statement.path_id);
  return envelope::VerifyDrill(statement, event.drill->signature, path->drill_key);
}

}  // namespace keyescrow::agent::audit
