#include "agent/usecases/verify_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/interrupted_restores.h"
#include "agent/usecases/logged_anchors.h"
#include "agent/usecases/number_text.h"

namespace keyescrow::agent {
namespace {

// StateKeys: whose signatures count for one state, and how we know them.
struct StateKeys {
  std::string host;
  std::string origin;
  std::vector<audit::NoteKey> log_keys;
  std::vector<std::string> agents;
  std::vector<envelope::AnchorKey> anchor_keys;
  enum class Basis : std::uint8_t { kTrustFile, kThumbprint, kOwn, kEvidence } basis{};
};

Result<StateKeys> KeysOf(const StateVerifyRequest& request) {
  StateKeys keys;
  if (!request.trusted_agent.empty()) keys.agents.push_back(request.trusted_agent);
  if (request.trust) {
    const TrustDocument& document = *request.trust;
    if (document.log_keys.empty() || document.origin.empty()) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "the file of --trust names no log and no log keys",
                   "make it with 'keyescrow agent-key export' of this version");
    }
    keys.basis = StateKeys::Basis::kTrustFile;
    keys.host = document.host;
    keys.origin = document.origin;
    keys.log_keys = document.log_keys;
    keys.agents.push_back(document.thumbprint);
    if (document.anchor) keys.anchor_keys.push_back(*document.anchor);
    return keys;
  }
  const bool own = request.mode == store::ReaderMode::kLive;
  auto identity = own ? LoadAgentIdentity(request.state_dir) : ReadAgentIdentity(request.state_dir);
  if (!identity) return std::move(identity).error();
  const std::string thumbprint = identity->Thumbprint();
  if (!own && !request.trusted_agent.empty() && thumbprint != request.trusted_agent) {
    return Error(ErrorCode::kAgentNotTrusted, Action::kFixInput,
                 "the state is of the agent " + thumbprint + ", not of " + request.trusted_agent,
                 "name the agent whose state it is, or give its file of 'agent-key export' as "
                 "--trust");
  }
  keys.basis = own                             ? StateKeys::Basis::kOwn
               : request.trusted_agent.empty() ? StateKeys::Basis::kEvidence
                                               : StateKeys::Basis::kThumbprint;
  keys.host = identity->host;
  keys.origin = identity->origin;
  keys.log_keys = {audit::NoteKey::Ed25519(identity->origin, identity->ed25519),
                   audit::NoteKey::P256(identity->origin, identity->p256)};
  keys.agents.push_back(thumbprint);
  if (identity->anchor) keys.anchor_keys.push_back(identity->anchor->key);
  return keys;
}

void SayChecked(const StateVerifyRequest& request, const StoreVerification& found,
                VerifyItem& item) {
  const audit::LogReport& log = found.log;
  auto& checked = item.checked;
  checked.push_back(fmt::format("{}: each body hashed, its shape, number and chain",
                                Plural(log.num_entries, "entry", "entries")));
  checked.push_back(fmt::format(
      "{} and {}: each root rebuilt from the bodies; {}",
      Plural(log.num_checkpoints, "checkpoint", "checkpoints"),
      Plural(log.num_tiles, "tile", "tiles"),
      request.quick ? "the newest one's signatures"
                    : Plural(log.num_signatures, "signature", "signatures") + " verified"));
  checked.push_back(fmt::format("{} of {}: each hashed and held against the entry that escrowed it",
                                Plural(found.num_envelopes, "envelope", "envelopes"),
                                Plural(found.num_keys, "key", "keys")));
  if (!request.quick) {
    checked.push_back(fmt::format(
        "{}: format, trust at its time, revisions; {} recomputed",
        Plural(found.num_envelope_signatures, "envelope's signature", "envelopes' signatures"),
        Plural(found.num_tpm_objects, "TPM public area", "TPM public areas")));
    checked.push_back(
        fmt::format("{}, each by its entry; {} of the log, each by the path's own key",
                    Plural(found.num_proofs, "proven path", "proven paths"),
                    Plural(found.drills.num_held, "proof", "proofs")));
  }
  if (!request.quick) {
    checked.push_back(
        fmt::format("{}: paths against the policy in force at their time; {} by text and signers",
                    Plural(found.num_held_to_policy, "envelope", "envelopes"),
                    Plural(found.num_policies, "signed policy", "signed policies")));
  }
  checked.push_back(fmt::format("{}, each with its end{}; {}, {} and {} against the log",
                                Plural(found.num_releases, "restore", "restores"),
                                InterruptedText(found.num_interrupted),
                                Plural(found.num_tokens, "token", "tokens"),
                                Plural(found.num_trusted, "trusted agent", "trusted agents"),
                                Plural(found.num_imported, "imported event", "imported events")));
  if (found.num_rotations + found.num_destroyed > 0) {
    checked.push_back(fmt::format("{} by its entries; {} gone, each by the entry that destroyed it",
                                  Plural(found.num_rotations, "rotation", "rotations"),
                                  Plural(found.num_destroyed, "envelope", "envelopes")));
  }
  if (found.num_anchors > 0) {
    checked.push_back(
        fmt::format("{} of the TPM's counter, which rose by one from each to the next",
                    Plural(found.num_anchors, "certificate", "certificates")));
  }
  checked.emplace_back("tables, indexes and triggers of the store");
  if (!request.since.empty()) {
    checked.emplace_back("the log against the checkpoint that you kept");
  }
}

void SayNotChecked(const StateVerifyRequest& request, const StateKeys& keys,
                   const StoreVerification& found, VerifyItem& item) {
  auto& not_checked = item.not_checked;
  if (request.since.empty()) {
    not_checked.emplace_back(
        "a tail that was cut off with its checkpoints, or an old copy that was put back: compare "
        "with your own older checkpoint (--since FILE)");
  }
  if (found.num_unchecked_anchors > 0) {
    not_checked.push_back(
        fmt::format("{} of the TPM's counter: by a key that is not among those that were given",
                    Plural(found.num_unchecked_anchors, "certificate", "certificates")));
  }
  if (found.drills.num_no_envelope > 0) {
    not_checked.push_back(
        fmt::format("{} in the log: the envelope is not in the store",
                    Plural(found.drills.num_no_envelope, "proof of a path", "proofs of paths")));
  }
  if (found.drills.num_no_tile > 0) {
    not_checked.push_back(
        fmt::format("the checkpoint of {} in the log: a tile is damaged",
                    Plural(found.drills.num_no_tile, "proof of a path", "proofs of paths")));
  }
  if (found.num_imported > 0) {
    not_checked.push_back(
        fmt::format("what {} say: nothing signed that before it was imported",
                    Plural(found.num_imported, "imported event", "imported events")));
  }
  not_checked.emplace_back("that a path opens: that takes its factors");
  not_checked.emplace_back(
      "what tokens and TPMs were when a policy asked for it; the policy that an imported envelope "
      "was made under; whether the first policy's signers are whom you know");
  if (found.num_unread_policies > 0) {
    not_checked.push_back(
        fmt::format("{} that ask for a newer keyescrow, and what was escrowed under them",
                    Plural(found.num_unread_policies, "policy", "policies")));
  }
  not_checked.emplace_back(
      "what no entry tells: tokens' URIs, modules and PIN sources, names of trusted "
      "agents, fingerprints of keys in use, LUKS bindings, destinations, by what a path was "
      "proven, "
      "proofs of paths and drills of recovery keys that the store no longer has, by what a "
      "rotation "
      "hands over and which step an open one is at, when the row of a token, a recovery key or a "
      "trusted agent was written" +
      std::string(found.unlogged_settings.empty() ? "" : ", other settings"));
  if (keys.basis == StateKeys::Basis::kOwn) {
    not_checked.push_back("that this state's keys are the agent's: compare the thumbprint " +
                          keys.agents.back() + " with the one that you kept");
  }
  if (request.quick) {
    item.partial = true;
    not_checked.emplace_back(
        "with --quick: envelopes' signatures, formats, trust and policy, older checkpoints' "
        "signatures, "
        "proofs of paths");
  }
  if (keys.basis == StateKeys::Basis::kEvidence) {
    item.partial = true;
    not_checked.push_back(
        "whose state this is: its keys came from the state itself and were not authenticated; "
        "give --trust FILE, or compare the thumbprint " +
        keys.agents.back() + " and give it as --agent");
  }
  if (keys.basis == StateKeys::Basis::kThumbprint && !found.log.latest_has_p256) {
    item.partial = true;
    not_checked.emplace_back(
        "the newest entries: the agent that you named did not sign the newest checkpoint, and the "
        "log key came from the state itself; give --trust FILE");
  }
}

// HoldCounter holds what a copy's agent.json says of the TPM's counter against the log; on its host
// the TPM is asked. It is not signed: it never says that all is well.
void HoldCounter(const StateVerifyRequest& request, const StoreVerification& found,
                 VerifyItem& item) {
  auto identity = ReadAgentIdentity(request.state_dir);
  if (!identity) return;
  const audit::AnchorState& logged = found.anchors.state();
  const bool was_anchored = found.anchors.num_unchecked() > 0;
  std::string fault;
  bool damage = true;
  if (!identity->anchor) {
    if (was_anchored) fault = kNoCounterNamed;
  } else if (logged.key == identity->anchor->key) {
    if (logged.counter && identity->anchor->base > *logged.counter) {
      fault = fmt::format(
          "agent.json was changed: it has the tpm's counter begin above {}, and the log was "
          "anchored "
          "at {}",
          identity->anchor->base, *logged.counter);
    }
  } else {
    damage = false;  // also where the process died that made the counter
    fault =
        "agent.json names a counter in the tpm that the log does not tell of: an older store may "
        "have been put back";
  }
  if (fault.empty()) return;
  const std::string remedy =
      "run 'keyescrow verify' on the agent's host, or compare with a checkpoint that was kept "
      "elsewhere (--since FILE)";
  item.findings.push_back(
      {std::string(ErrorCodeName(ErrorCode::kAnchorMismatch)), 0, fault, remedy, damage});
  ++item.num_findings;
  if (damage && !item.error) {
    item.error = Error(ErrorCode::kAnchorMismatch, Action::kCallOperator, fault, remedy);
  }
}

}  // namespace

Result<VerifyItem> VerifyState(const StateVerifyRequest& request, Progress& progress) {
  ASSIGN_OR_RETURN(const StateKeys keys, KeysOf(request));
  StoreVerifyOptions options;
  options.state_dir = request.state_dir;
  options.mode = request.mode;
  options.origin = keys.origin;
  options.log_keys = keys.log_keys;
  options.agents = keys.agents;
  options.anchor_keys = keys.anchor_keys;
  options.quick = request.quick;
  options.num_threads = request.num_threads == 0 ? DefaultVerifyThreads() : request.num_threads;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    progress.Step(fmt::format("verifying {} of {}", Grouped(done), Grouped(total)));
  };
  if (!request.since.empty()) {
    ASSIGN_OR_RETURN(options.since, audit::OpenCheckpoint(request.since, keys.log_keys));
  }
  progress.Step("verifying");
  ASSIGN_OR_RETURN(StoreVerification found, VerifyStore(options));
  VerifyItem item;
  item.what = "state of " + keys.host;
  item.num_envelopes = found.num_envelopes;
  AddFindings({found.log.findings, found.log.num_findings, found.log.num_damages},
              "the state does not verify",
              "keep a copy of the state folder, and compare with the checkpoints and files "
              "that were kept elsewhere",
              item);
  if (request.mode == store::ReaderMode::kEvidence) HoldCounter(request, found, item);
  SayChecked(request, found, item);
  SayNotChecked(request, keys, found, item);
  item.store = std::move(found);
  return item;
}

}  // namespace keyescrow::agent
