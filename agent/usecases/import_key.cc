// ImportKey: a trusted agent's envelope, taken into the store.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "agent/usecases/envelope_source.h"
#include "agent/usecases/foreign_checks.h"
#include "agent/usecases/path_set.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/rotation_record.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

// CheckNotDestroyed: the place of a destroyed version stays empty, whichever envelope comes for it.
Status CheckNotDestroyed(Agent& agent, const envelope::Header& header) {
  ASSIGN_OR_RETURN(const auto destroyed, agent.store().Destroyed(header.key_name));
  for (const store::DestroyedRecord& row : destroyed) {
    if (row.key_version != header.key_version) continue;
    const bool is_own = header.agent == agent.identity().Thumbprint();  // not to be adopted
    return Error(
        ErrorCode::kNotFound, Action::kFixInput,
        fmt::format("version {} of {} was destroyed here, and its place stays empty",
                    header.key_version, header.key_name),
        std::string("this file still restores by itself; ") +
            (is_own ? "what it then gives, 'keyescrow backup " + header.key_name +
                          " --from' escrows as a new version"
                    : "'keyescrow adopt FILE' makes what it holds a new version of this host"));
  }
  return Ok();
}

// NotImported tells what the file is beside the envelope of that version that is here.
Error NotImported(const envelope::Header& header, const store::EnvelopeRecord& existing) {
  std::string why = "another envelope of it is in the store";
  if (existing.envelope_id == header.envelope_id) {
    const char* const form =
        header.revision < existing.revision    ? "the store has its later revision {}"
        : header.revision == existing.revision ? "the store has another revision {} of it"
                                               : "it follows another revision {} than the store's";
    why = fmt::format(fmt::runtime(form), existing.revision);
  }
  return Error(
      ErrorCode::kAlreadyExists, Action::kFixInput,
      fmt::format("revision {} of {} version {} is not imported: {}", header.revision,
                  header.key_name, header.key_version, why),
      "the store was left alone; restore from the file itself if that is the one you want");
}

}  // namespace

Result<ImportKeyResult> ImportKey(Agent& agent, const std::string& file) {
  ASSIGN_OR_RETURN(
      const EnvelopeSource source,
      FindEnvelope(nullptr, file.starts_with("file:") ? file : "file:" + file, std::nullopt));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  auto read = envelope::SealedEnvelope::Read(source.bytes, trust);
  if (!read && read.error().code() == ErrorCode::kAgentNotTrusted) {
    return std::move(read).error().WithHint(
        "compare this thumbprint with the one on the recovery sheet or from 'agent-key show' on "
        "its "
        "host; if it is the same, 'keyescrow trust add THUMBPRINT', and import again");
  }
  const bool may_be_one = !source.bytes.empty() && source.bytes.front() == '{';
  if (!read && !may_be_one) {
    return std::move(read).error().WithHint(
        "'import' takes an envelope of keyescrow, a clevis JWE, and a LUKS2 volume or a copy of "
        "its header: this is none of them");
  }
  ASSIGN_OR_RETURN(const auto sealed, std::move(read));
  const envelope::Header& header = sealed.header();
  ImportKeyResult result;
  result.key_name = header.key_name;
  result.key_version = header.key_version;
  result.revision = header.revision;
  auto existing = agent.store().FindEnvelope(header.key_name, header.key_version);
  if (existing) {
    if (existing->sha256 == sealed.hash()) {
      result.already_there = true;
      return result;
    }
    // Only the next edit of the very envelope that is here may follow it.
    const bool forked = header.revision == existing->revision + 1 &&
                        header.previous != EncodeBase64Url(existing->sha256);
    if (existing->envelope_id != header.envelope_id || header.revision <= existing->revision ||
        forked) {
      return NotImported(header, *existing);
    }
  } else if (existing.error().code() == ErrorCode::kNotFound) {
    RETURN_IF_ERROR(CheckNotDestroyed(agent, header));
  } else if (existing.error().code() != ErrorCode::kKeyNotFound &&
             existing.error().code() != ErrorCode::kVersionNotFound) {
    return std::move(existing).error();
  }
  RETURN_IF_ERROR(CheckSameKey(agent, header, existing ? &*existing : nullptr));
  ASSIGN_OR_RETURN(const auto rotating, agent.store().OpenRotation(header.key_name));
  if (rotating && !existing) return RotationIsOpen(*rotating);  // it would be in use at once
  ASSIGN_OR_RETURN(const std::vector<Finding> reported, CheckImport(agent, header));
  result.findings = FindingTexts(reported);
  if (existing && header.revision > existing->revision + 1) {
    // The agent that signed what is here signed this too; what it edited in between is its word.
    result.findings.push_back("revisions " + std::to_string(existing->revision + 1) + " to " +
                              std::to_string(header.revision - 1) +
                              " are not here: that this one follows revision " +
                              std::to_string(existing->revision) + " was not checked");
  }
  store::EnvelopeRecord record;
  record.key_name = header.key_name;
  record.key_version = header.key_version;
  record.revision = header.revision;
  record.envelope_id = header.envelope_id;
  record.sha256 = sealed.hash();
  // As old as its maker says: a rule's grace does not begin with the import.
  record.created = std::min(ParseUtc(header.created).value_or(agent.Now()), agent.Now());
  record.bytes = source.bytes;
  record.path_set = PathSetDigest(header);
  store::Change change;
  change.envelopes.push_back(std::move(record));
  audit::Event event;
  event.type = audit::EventType::kEscrowCreated;
  event.key = audit::EventKey{header.key_name, header.key_version};
  event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
  event.policy = audit::EventPolicy{header.policy, 0, {}};
  std::vector<const envelope::PathRecord*> paths;
  for (const envelope::PathRecord& path : header.paths) paths.push_back(&path);
  event.paths = DescribePaths(paths);
  event.reason = "imported; signed by " + header.agent;
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return result;
}

}  // namespace keyescrow::agent
