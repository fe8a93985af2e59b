#include "agent/usecases/verify.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "agent/audit/checkpoint.h"
#include "agent/audit/proof.h"
#include "agent/usecases/anchoring.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/verify_pack.h"
#include "agent/usecases/verify_state.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

Error ProofError(std::string message) {
  return Error(ErrorCode::kLogDamaged, Action::kFixInput, std::move(message),
               "take the envelope and its receipt from one export");
}

// EnvelopeVerifier checks envelopes and receipts against the keys that are trusted.
class EnvelopeVerifier {
 public:
  EnvelopeVerifier(envelope::ReadOptions trust, std::vector<audit::NoteKey> log_keys)
      : trust_(std::move(trust)), log_keys_(std::move(log_keys)) {}

  VerifyItem Check(const EnvelopeSource& source, const std::string& what) {
    VerifyItem item;
    item.what = what;
    item.num_envelopes = 1;
    auto sealed = envelope::SealedEnvelope::Read(source.bytes, trust_);
    if (!sealed) {
      item.error = sealed.error();
      return item;
    }
    item.what = sealed->header().key_name + " version " +
                std::to_string(sealed->header().key_version) +
                (source.file.empty() ? "" : " in " + source.file);
    item.checked = {"format and limits, with each TPM object's public area recomputed", "signature",
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
      item.not_checked.emplace_back("the log: 'keyescrow verify' without a name checks it");
    } else {
      CheckReceipt(source.file, *sealed, item);
    }
    return item;
  }

 private:
  void CheckReceipt(const std::string& file, const envelope::SealedEnvelope& sealed,
                    VerifyItem& item) {
    auto text = ReadDocument(file + ".receipt", "receipt");
    if (!text) {
      const Error& why = text.error();
      if (why.native_domain() == "errno" && why.native_code() == ENOENT) {
        item.not_checked.emplace_back("the receipt: there is no " + file + ".receipt");
      } else {
        item.error = std::move(text).error();
      }
      return;
    }
    auto proof = audit::ParseTlogProof(AsText(*text));
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

Result<std::string> ReadText(const std::string& file, const std::string& what) {
  ASSIGN_OR_RETURN(const Bytes text, ReadDocument(file, what));
  return std::string(AsText(text));
}

Result<audit::TokenAnswers> ReadAnswers(const std::string& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(file, "file of answers"));
  return audit::ParseTokenAnswers(text);
}

Result<DrawnSample> ReadSample(const SampleFiles& files) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(files.challenge, "challenge"));
  ASSIGN_OR_RETURN(audit::Challenge challenge, audit::ParseChallenge(text));
  std::optional<AnswersOfTokens> answers;
  if (!files.expected.empty()) {
    answers.emplace();
    ASSIGN_OR_RETURN(answers->expected, ReadAnswers(files.expected));
    ASSIGN_OR_RETURN(answers->given, ReadAnswers(files.answers));
  }
  return DrawnSample::Make(std::move(challenge), std::move(answers));
}

// CheckAnchoring asks the TPM whether the store is the newest one. A log that was anchored says
// that it can be asked: where it cannot, somebody may have seen to that. Nothing where neither log
// nor agent.json nor TPM has a counter; `state` then tells whether the TPM could be asked.
std::optional<VerifyItem> CheckAnchoring(Agent* agent, VerifyItem& state) {
  const StoreVerification* const found = state.store ? &*state.store : nullptr;
  const bool was_anchored = found != nullptr && found->anchors.num_unchecked() > 0;
  const bool is_named = agent != nullptr && agent->identity().anchor;
  AnchorCheck check;
  if (agent == nullptr) {
    check.what = "the tpm's counter was not read: the agent's state does not open";
    check.remedy = "run 'keyescrow doctor'";
  } else if (found != nullptr) {
    const LoggedAnchors logged{found->anchors, found->log.num_entries};
    check = CheckCounter(*agent, &logged);
  } else {
    check = CheckCounter(*agent);
  }
  if (!was_anchored && !is_named && !check.error) {
    const bool has_tpm = agent != nullptr && !agent->identity().srk_public.empty();
    if (has_tpm && !check.asked) {
      state.not_checked.push_back(
          "whether the tpm has a counter of this log that the state does not name: " + check.what);
    }
    return std::nullopt;
  }
  VerifyItem item;
  item.what = "anchor";
  const bool unread = !check.checked && !check.error && was_anchored;
  // A counter that is gone tells nothing of the store: it may be the TPM that was cleared.
  if (unread || (check.error && check.error->code() == ErrorCode::kAnchorMissing)) {
    item.findings.push_back({std::string(ErrorCodeName(ErrorCode::kAnchorMissing)), 0, check.what,
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

VerifyItem Failed(const std::string& what, Error error) {
  VerifyItem item;
  item.what = what;
  item.error = std::move(error);
  return item;
}

}  // namespace

void AddFindings(const audit::LogFindings& findings, std::string_view failure,
                 const std::string& hint, VerifyItem& item) {
  for (const audit::LogFinding& finding : findings.list) {
    item.findings.push_back({std::string(audit::LogFaultName(finding.fault)), finding.position,
                             finding.text, std::string(audit::LogFaultRemedy(finding.fault)),
                             audit::IsDamage(finding.fault)});
  }
  std::stable_partition(item.findings.begin(), item.findings.end(),
                        [](const VerifyFinding& finding) { return finding.damage; });
  item.num_findings = findings.num_all;
  if (findings.num_damages == 0) return;
  item.error = Error(ErrorCode::kLogDamaged, Action::kCallOperator,
                     fmt::format("{}: {} {}", failure, findings.num_damages,
                                 findings.num_damages == 1 ? "fault" : "faults"),
                     hint);
}

Result<TrustDocument> ReadTrustDocument(const std::string& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(file, "agent's public key"));
  return ParseAgentKeyDocument(text);
}

bool IsStateFolder(const std::string& path) {
  struct stat status {};
  return stat((path + "/" + std::string(store::kStoreFileName)).c_str(), &status) == 0 &&
         S_ISREG(status.st_mode);
}

Result<std::vector<VerifyItem>> Verify(const std::string& state_dir, Agent* agent,
                                       const VerifyRequest& request, Progress& progress) {
  StateVerifyRequest state;
  state.trusted_agent = request.trusted_agent;
  state.num_threads = request.num_threads;
  state.quick = request.quick;
  ASSIGN_OR_RETURN(envelope::ReadOptions trust, TrustFor(agent, request.trusted_agent, false));
  std::vector<audit::NoteKey> log_keys;
  if (agent != nullptr) log_keys = agent->journal().Keys();
  if (!request.trust_file.empty()) {
    ASSIGN_OR_RETURN(state.trust, ReadTrustDocument(request.trust_file));
    const auto& names = request.names_or_files;
    const bool has_log = names.empty() || std::ranges::any_of(names, [](const std::string& name) {
                           return IsStateFolder(name) || IsPack(name);
                         });
    if (has_log && !request.trusted_agent.empty() &&
        request.trusted_agent != state.trust->thumbprint) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "--trust is the file of the agent " + state.trust->thumbprint +
                       ", and --agent names another",
                   "give one of the two");
    }
    trust.trusted.push_back({state.trust->thumbprint, {}, {}});
    log_keys.insert(log_keys.end(), state.trust->log_keys.begin(), state.trust->log_keys.end());
  }
  if (!request.since_file.empty()) {
    ASSIGN_OR_RETURN(state.since, ReadText(request.since_file, "checkpoint"));
    if (state.since.empty()) {
      return Error(ErrorCode::kLogDamaged, Action::kFixInput,
                   request.since_file + " is empty: it holds no checkpoint",
                   "give the file that you kept of 'keyescrow audit checkpoint'");
    }
  }
  std::optional<DrawnSample> sample;
  if (!request.sample.challenge.empty()) {
    if (request.names_or_files.size() != 1 || !IsPack(request.names_or_files.front())) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "a challenge is held against one evidence pack, and nothing else was given",
                   "have the host run 'keyescrow audit export -o PACK' after its drill, and give "
                   "PACK");
    }
    ASSIGN_OR_RETURN(sample, ReadSample(request.sample));
  }
  std::vector<VerifyItem> items;
  const auto verify_state = [&](const std::string& folder, store::ReaderMode mode) {
    state.state_dir = folder;
    state.mode = mode;
    auto item = VerifyState(state, progress);
    items.push_back(item ? std::move(*item) : Failed(folder, std::move(item).error()));
  };
  EnvelopeVerifier verifier(trust, std::move(log_keys));
  bool since_compared = false;
  for (const std::string& name : request.names_or_files) {
    if (IsStateFolder(name)) {
      since_compared = true;
      verify_state(name, store::ReaderMode::kEvidence);
      continue;
    }
    if (IsPack(name)) {
      since_compared = true;
      items.push_back(VerifyPack(agent, {name, state.trust, request.trusted_agent, state.since,
                                         sample ? &*sample : nullptr}));
      continue;
    }
    auto source = FindEnvelope(agent, name, std::nullopt);
    items.push_back(source ? verifier.Check(*source, name)
                           : Failed(name, std::move(source).error()));
  }
  if (request.names_or_files.empty() || (!request.since_file.empty() && !since_compared)) {
    verify_state(state_dir, store::ReaderMode::kLive);
    auto anchoring = CheckAnchoring(agent, items.back());
    if (anchoring) items.push_back(std::move(*anchoring));
  }
  return items;
}

Result<std::uint64_t> RecordVerification(Agent& agent, const std::vector<VerifyItem>& items) {
  audit::Event event;
  event.type = audit::EventType::kVerifyPassed;
  std::string found;
  for (const VerifyItem& item : items) {
    if (item.store) {
      event.reason =
          fmt::format("{} and {}", Plural(item.store->log.num_entries, "entry", "entries"),
                      Plural(item.num_envelopes, "envelope", "envelopes"));
    }
    if (item.Passes()) continue;
    event.type = audit::EventType::kVerifyFailed;
    event.outcome = audit::Outcome::kFailure;
    if (item.error && event.error.empty()) event.error = ErrorCodeName(item.error->code());
    if (!found.empty()) continue;
    if (!item.findings.empty()) {
      const VerifyFinding& first = item.findings.front();
      found = fmt::format("{}, the first {} at {}: {}",
                          Plural(item.num_findings, "finding", "findings"), first.fault,
                          first.position, first.what);
    } else {
      found = item.error ? item.error->message() : "not all was checked";
    }
  }
  event.reason += (event.reason.empty() ? "" : ": ") + (found.empty() ? "verified" : found);
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent.journal().Append(std::move(event)));
  return receipt.seq;
}

}  // namespace keyescrow::agent
