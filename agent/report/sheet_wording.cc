#include "agent/report/sheet_wording.h"

#include <fmt/core.h>

#include <algorithm>

namespace keyescrow::agent::report {
namespace {

// ExamplePath: the path of the commands: the first that opens on any machine.
const SheetPath& ExamplePath(const RecoverySheet& sheet) {
  const auto portable = std::find_if(sheet.paths.begin(), sheet.paths.end(),
                                     [](const SheetPath& path) { return path.portable; });
  return portable == sheet.paths.end() ? sheet.paths.front() : *portable;
}

}  // namespace

std::string WhatItIs(const RecoverySheet& sheet, SheetForm form) {
  const bool guessable = std::any_of(
      sheet.paths.begin(), sheet.paths.end(),
      [](const SheetPath& path) { return path.has_password && path.needs.size() == 1; });
  return fmt::format(
      "The {} on this sheet are the escrowed key {}, sealed. The sheet alone opens nothing and "
      "no secret stands on it{}: keep it apart from the tokens and passwords of the ways in below. "
      "A lost password cannot be recovered by anybody.",
      form == SheetForm::kCodes ? "codes" : "last lines", sheet.key_name,
      guessable
          ? ", but one way in needs a password alone, which who has the sheet can try to guess"
          : "");
}

std::vector<SheetStep> StepsOf(const RecoverySheet& sheet, SheetForm form, std::size_t num_lines) {
  const SheetPath& path = ExamplePath(sheet);
  std::string restore =
      fmt::format("keyescrow restore ./sheet.txt --agent {} --via {}", sheet.agent, path.id);
  if (path.has_token) {
    restore += " --module " + (path.module.empty() ? std::string("MODULE") : path.module);
  }
  restore += " --to ./the.key --reason WHY";
  SheetStep scan{
      fmt::format(
          "Scan the {} codes into one file, a line each, in any order; from pictures of the "
          "page, by zbar-tools:",
          num_lines),
      "zbarimg -q --raw -Sdisable -Sqrcode.enable page*.png > sheet.txt"};
  if (form == SheetForm::kLines) {
    scan = {
        fmt::format("Get the {} lines that begin with KE1/ into a file sheet.txt, in any order: "
                    "typed, read by a scanner, or with the whole of this text.",
                    num_lines),
        ""};
  }
  return {
      {fmt::format("Bring all that one way in needs, and a Linux machine that nobody else uses, "
                   "with keyescrow {} or later: the copied program is enough, nothing is set up{}.",
                   sheet.program_version,
                   path.portable ? "" : "; here, the very machine of the TPM"),
       ""},
      std::move(scan),
      {"This must show the key, the envelope hash and the agent of this page. What is "
       "missing or was misread is named.",
       "keyescrow show ./sheet.txt"},
      {"Restore. It asks for what the way in needs; never repeat a PIN or password that was "
       "refused: tokens and TPMs lock.",
       std::move(restore)},
      {fmt::format("Put the key where its application reads it. On host {}, or where its log is "
                   "kept, let the audit log know; then put this sheet back.",
                   sheet.host),
       "keyescrow import-event keyescrow-restore-ID.json"},
  };
}

SheetStep WithoutKeyescrow() {
  return {
      "the page RECOVER-WITHOUT-KEYESCROW.md of its documentation restores from the same lines "
      "with bash, base32, gzip, jq, jose, openssl, argon2, opensc and tpm2-tools of Debian 12. "
      "Print it, and keep it with this sheet.",
      ""};
}

std::vector<SheetFact> FactsOf(const RecoverySheet& sheet) {
  std::vector<SheetFact> facts = {
      {"key", sheet.key_name},
      {"version, revision of the envelope",
       fmt::format("{}, {}", sheet.key_version, sheet.revision)},
      {"host", sheet.host},
      {"escrowed", sheet.created},
  };
  if (sheet.updated != sheet.created) facts.push_back({"paths changed", sheet.updated});
  facts.push_back({"envelope id", sheet.envelope_id, true});
  facts.push_back({"envelope hash (SHA-256)", sheet.envelope_hash, true});
  facts.push_back({"signed by the agent with the thumbprint", sheet.agent, true});
  return facts;
}

std::string NeedsOf(const SheetPath& path) {
  std::string text;
  for (const std::string& need : path.needs) text += (text.empty() ? "" : "; ") + need;
  return text;
}

}  // namespace keyescrow::agent::report
