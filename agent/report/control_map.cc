#include "agent/report/control_map.h"

#include <fmt/core.h>

namespace keyescrow::agent::report {
namespace {

constexpr std::string_view kNist = "NIST SP 800-53";
constexpr std::string_view kPci = "PCI DSS 4";
constexpr std::string_view kIso = "ISO/IEC 27001:2022";

constexpr Control kControls[] = {
    {kNist, "SC-12", "keys are made, kept, given out and destroyed by defined rules",
     "policy/, inventory.json, summaries/; escrow.* and key.* entries in entries/"},
    {kNist, "SC-12(1)", "information stays available when users lose their keys",
     "status.json: coverage and the proofs of each path; drill.* and restore.* entries"},
    {kNist, "CP-9(1)", "backups are tested for being usable",
     "status.json: the last proof of each path; drills.jsonl: signed drill statements"},
    {kNist, "AU-3", "records say what, when, where, who and with which outcome",
     "entries/: type, time, host, actor and outcome of each entry"},
    {kNist, "AU-5", "a failure of logging is told, and acted on",
     "no release without a durable intent: restore.requested before each outcome in entries/"},
    {kNist, "AU-8", "records carry time stamps in UTC from a known clock",
     "entries/: time and clock_synced of each entry"},
    {kNist, "AU-9(2)", "records are kept on another system too",
     "this pack, and the checkpoints that the auditor keeps (verify --since)"},
    {kNist, "AU-9(3)", "cryptography protects the records' integrity",
     "checkpoint, checkpoints/, tile/, proofs/: a Merkle tree under two signatures"},
    {kNist, "AU-9(4)", "few may manage the records",
     "entries are never changed or deleted: verify.py recomputes the tree from entries/"},
    {kNist, "AU-10", "who did something cannot deny it",
     "entries/: actor, with the login before su or sudo; drills.jsonl: signatures by the path"},
    {kNist, "AC-5", "duties are separated",
     "policy/: signers; summaries/: factors of each path, among them k of n officers"},
    {kPci, "3.6.1", "keys that protect stored account data are kept from disclosure and misuse",
     "summaries/: each path's factors, key hashes and stretching costs"},
    {kPci, "3.7.1", "strong keys are generated",
     "escrow.created entries; policy/: what is allowed"},
    {kPci, "3.7.2", "keys are distributed securely",
     "restore.* entries: every release, by whom, by which path, to what end"},
    {kPci, "3.7.3", "keys are stored securely",
     "summaries/: hardware factors of each path; status.json: password-only paths as "
     "findings"},
    {kPci, "3.7.4", "keys are changed at the end of their cryptoperiod",
     "inventory.json: versions and dates; key.rotated entries"},
    {kPci, "3.7.5", "keys are retired, replaced or destroyed when weakened or suspected",
     "key.rotated, key.destroyed and escrow.superseded entries"},
    {kPci, "3.7.6", "manual operations on clear-text keys need split knowledge and dual control",
     "summaries/: paths of k of n officers, or of two factors"},
    {kPci, "3.7.7", "unauthorised substitution of keys is prevented",
     "summaries/ with proofs/: envelope hashes, each proven into the log"},
    {kPci, "3.7.8", "custodians accept their duties",
     "outside of what keyescrow records: ask for the signed forms"},
    {kPci, "3.7.9", "customers get guidance where keys are shared with them",
     "outside of what keyescrow records"},
    {kPci, "10.2", "access and administrative actions are logged",
     "entries/: restore.*, factor.*, policy.changed, audit.exported"},
    {kPci, "10.3", "logs are protected from destruction and change",
     "checkpoint, tile/, proofs/; verify.py --since with an older checkpoint"},
    {kPci, "10.4", "logs are reviewed",
     "report.html and findings of status.json; audit.exported entries: when evidence was taken; "
     "the "
     "verdict of verify.py or 'keyescrow verify', which the reviewer keeps"},
    {kPci, "10.5", "logs are retained and at hand",
     "entries/: all of them since the first, without gaps"},
    {kIso, "A.8.24", "rules for cryptography and key management are defined and kept",
     "policy/, status.json: findings against the policy, with remedies"},
    {kIso, "A.8.13", "backups are kept and tested",
     "status.json: coverage and drill ages; drill.* entries"},
    {kIso, "A.8.15", "logs are produced, kept, protected and analysed",
     "entries/, checkpoint, tile/, proofs/; anchors.jsonl; audit.exported entries"},
};

}  // namespace

std::span<const Control> ControlMap() { return kControls; }

std::string ControlsMarkdown() {
  std::string text =
      "# Controls\n\nRequirements are paraphrased; the standards' own texts count.\n\n"
      "| standard | control | asks, in our words | evidence in this pack |\n|---|---|---|---|\n";
  for (const Control& control : ControlMap()) {
    text += fmt::format("| {} | {} | {} | {} |\n", control.standard, control.id, control.asks,
                        control.evidence);
  }
  return text;
}

}  // namespace keyescrow::agent::report
