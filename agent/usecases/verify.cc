// verify: what can be checked without a secret, and what was not checked.
#include <algorithm>

#include "agent/audit/proof.h"
#include "agent/usecases/anchoring.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/registry.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

Error ProofError(std::string message) {
  return Error(ErrorCode::kLogDamaged, Action::kFixInput, std::move(message),
               "take the envelope and its receipt from one export");
}

// Verifier checks envelopes and receipts against the keys that are trusted.
class Verifier {
 public:
  Verifier(envelope::ReadOptions trust, std::vector<audit::NoteKey> log_keys)
      : trust_(std::move(trust)), log_keys_(std::move(log_keys)) {}

  VerifyItem Check(const EnvelopeSource& source, const std::string& what) {
    VerifyItem item;
    item.what = what;
    auto sealed = envelope::SealedEnvelope::Read(source.bytes, trust_);
    if (!sealed) {
      item.error = sealed.error();
      return item;
    }
    item.what = sealed->header().key_name + " version " +
                std::to_string(sealed->header().key_version) +
                (source.file.empty() ? "" : " in " + source.file);
    item.checked = {"format and limits", "signature",
                    "agent " + sealed->header().agent + " is trusted for it"};
    item.not_checked = {"that a path opens: that takes its factors"};
    if (source.record && source.record->sha256 != sealed->hash()) {
      item.error = Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                         "the envelope is not the one that its row and the log name",
                         "restore the store from a backup, and keep this one for the inquiry");
      return item;
    }
    if (source.file.empty()) {
      item.checked.emplace_back("hash in the store");
    } else {
      CheckReceipt(source.file, *sealed, item);
    }
    return item;
  }

 private:
  void CheckReceipt(const std::string& file, const envelope::SealedEnvelope& sealed,
                    VerifyItem& item) {
    auto source = FindEnvelope(nullptr, "file:" + file + ".receipt", std::nullopt);
    if (!source) {
      item.not_checked.emplace_back("the receipt: there is no " + file + ".receipt");
      return;
    }
    auto proof = audit::ParseTlogProof(AsText(source->bytes));
    if (!proof) {
      item.error = std::move(proof).error();
      return;
    }
    auto event = audit::ParseEvent(AsText(proof->extra));
    if (!event || !event->envelope || event->envelope->sha256 != sealed.hash()) {
      item.error = ProofError("the receipt is of another envelope");
      return;
    }
    if (log_keys_.empty()) {
      item.not_checked.emplace_back("the receipt's signatures: no log key is known (--trust FILE)");
      return;
    }
    auto verified = audit::VerifyTlogProof(*proof, proof->extra, "", log_keys_);
    if (!verified) {
      item.error = std::move(verified).error();
      return;
    }
    item.checked.push_back("receipt: entry " + std::to_string(proof->index) + " of the log " +
                           verified->checkpoint.origin);
  }

  envelope::ReadOptions trust_;
  std::vector<audit::NoteKey> log_keys_;
};

Result<std::string> ReadSince(const std::string& file) {
  if (file.empty()) return std::string();
  ASSIGN_OR_RETURN(const EnvelopeSource source, FindEnvelope(nullptr, "file:" + file, {}));
  return std::string(AsText(source.bytes));
}

// CheckAnchoring asks the TPM, where it is at hand, whether the store is the newest one.
VerifyItem CheckAnchoring(Agent& agent) {
  VerifyItem item;
  item.what = "anchor";
  AnchorCheck check = CheckCounter(agent);
  // A counter that is gone tells nothing of the store: it may be the TPM that was cleared.
  if (check.error && check.error->code() == ErrorCode::kAnchorMissing) {
    item.findings.push_back({std::string(ErrorCodeName(check.error->code())), 0, check.what,
                             check.remedy, /*damage=*/false});
    item.num_findings = 1;
    item.not_checked.emplace_back("whether an older store was put back");
    return item;
  }
  item.error = std::move(check.error);
  if (check.checked) {
    item.checked.push_back(std::move(check.what));
  } else if (!item.error) {
    item.not_checked.push_back(std::move(check.what));
  }
  return item;
}

Result<VerifyItem> CheckLog(Agent& agent, const std::string& since) {
  VerifyItem item;
  item.what = "log";
  const auto hash_of = [](ByteView bytes) -> Result<Bytes32> {
    envelope::ReadOptions any;
    any.accept_unknown_agent = true;
    ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(bytes, any));
    return sealed.hash();
  };
  ASSIGN_OR_RETURN(const audit::LogReport report, agent.journal().VerifyAll(hash_of, since));
  item.checked = {std::to_string(report.num_entries) + " entries hashed",
                  std::to_string(report.num_checkpoints) + " checkpoints and their signatures",
                  "every kept envelope against the entry that escrowed it"};
  if (since.empty()) {
    item.not_checked.emplace_back(
        "a tail that was cut off with its checkpoints: compare with your own older checkpoint "
        "(--since FILE)");
  } else {
    item.checked.emplace_back("your older checkpoint is a prefix of the log");
  }
  for (const audit::LogFinding& finding : report.findings) {
    item.findings.push_back(std::string(audit::LogFaultName(finding.fault)) + " at " +
                            std::to_string(finding.position) + ": " + finding.text);
  }
  if (!report.Intact()) {
    item.error =
        Error(ErrorCode::kLogDamaged, Action::kCallOperator,
              "the audit log does not verify: " + std::to_string(report.num_damages) + " faults",
              "keep a copy of the state folder, and compare with the checkpoints that "
              "were kept elsewhere");
  }
  return item;
}

}  // namespace

Result<std::vector<VerifyItem>> Verify(Agent* agent, const VerifyRequest& request) {
  ASSIGN_OR_RETURN(envelope::ReadOptions trust, TrustFor(agent, request.trusted_agent, false));
  std::vector<audit::NoteKey> log_keys;
  if (agent != nullptr) log_keys = agent->journal().Keys();
  if (!request.trust_file.empty()) {
    ASSIGN_OR_RETURN(const EnvelopeSource source,
                     FindEnvelope(nullptr, "file:" + request.trust_file, {}));
    ASSIGN_OR_RETURN(const TrustDocument document, ParseAgentKeyDocument(AsText(source.bytes)));
    trust.trusted.push_back({document.thumbprint, {}, {}});
    log_keys.insert(log_keys.end(), document.log_keys.begin(), document.log_keys.end());
  }
  ASSIGN_OR_RETURN(const std::string since, ReadSince(request.since_file));
  Verifier verifier(trust, std::move(log_keys));
  std::vector<VerifyItem> items;
  for (const std::string& name : request.names_or_files) {
    auto source = FindEnvelope(agent, name, std::nullopt);
    if (!source) {
      VerifyItem item;
      item.what = name;
      item.error = std::move(source).error();
      items.push_back(std::move(item));
      continue;
    }
    items.push_back(verifier.Check(*source, name));
  }
  if (agent == nullptr) return items;
  if (request.names_or_files.empty()) {
    store::EscrowStore::EnvelopeQuery query;
    query.with_bytes = true;
    RETURN_IF_ERROR(agent->store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
      EnvelopeSource source{record.bytes, "", record};
      items.push_back(verifier.Check(
          source, record.key_name + " version " + std::to_string(record.key_version)));
      return true;
    }));
  }
  if (request.names_or_files.empty() || !since.empty()) {
    ASSIGN_OR_RETURN(VerifyItem log, CheckLog(*agent, since));
    items.push_back(std::move(log));
    if (agent->identity().anchor) items.push_back(CheckAnchoring(*agent));
  }
  return items;
}

}  // namespace keyescrow::agent
