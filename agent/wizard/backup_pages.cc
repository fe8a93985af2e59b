// The pages of a backup that ask for nothing of it: making the state, and the receipt.
#include <fmt/format.h>

#include "agent/usecases/init.h"
#include "agent/wizard/command_text.h"
#include "agent/wizard/journeys.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {

Result<Agent*> InitPages(WizardTools& tools, Questions& questions) {
  Page page;
  page.title = "Back up: this host has no state yet";
  page.paragraphs = {"The escrow store, the audit log and the agent's own key will be made in " +
                     tools.environment->state_dir +
                     ". The agent's key is made in the TPM where "
                     "there is one."};
  page.choices = {{"Make it now"}};
  page.help =
      "The same as 'keyescrow init'. A policy of your security team is put in force with "
      "'keyescrow init --policy', or later with 'keyescrow policy set'.";
  while (true) {
    ASSIGN_OR_RETURN(const auto choice, questions.Choose(page, 0));
    if (!choice) return nullptr;
    const std::string& tcti = tools.environment->tcti;
    auto made = Init(*tools.environment, !tcti.empty() && tcti != "none", *tools.progress);
    tools.progress->Pause();
    if (made) {
      for (const std::string& finding : made->findings) tools.progress->Warn(finding);
      return tools.open_agent();
    }
    ASSIGN_OR_RETURN(const AfterFailure after,
                     AskAfterFailure(questions, made.error(), "try to make it again"));
    if (after == AfterFailure::kLeave) return std::move(made).error();
    if (after == AfterFailure::kGoBack) return nullptr;
  }
}

Page BackupDonePage(const std::string& command, const BackupRequest& request,
                    const BackupResult& result) {
  Page page;
  page.title = result.Recoverable() ? "Done" : "Done, and something is left to do";
  page.paragraphs = {
      fmt::format("{} is escrowed as version {}.", result.key_name, result.key_version)};
  std::string table;
  for (const PathProof& path : result.paths) {
    table += fmt::format("{}  {:<18}{}", table.empty() ? "" : "\n", path.path_id,
                         path.proven          ? "proven: it was opened again from what was written"
                         : path.covered_since ? "covered: " + path.why_not
                                              : "not proven: " + path.why_not);
  }
  page.paragraphs.push_back(table);
  for (const std::string& finding : result.findings) {
    page.paragraphs.push_back("warning: " + finding);
  }
  page.paragraphs.push_back("Receipt, for the safe:");
  std::string receipt = "  envelope     " + EncodeBase64Url(result.envelope_hash) +
                        "\n  log entry    " + std::to_string(result.log_seq) + "\n  thumbprint   " +
                        result.thumbprint;
  if (!result.output.empty()) receipt += "\n  copy         " + result.output;
  if (!result.receipt.empty()) receipt += "\n  its receipt  " + result.receipt;
  page.paragraphs.push_back(receipt);
  page.paragraphs.push_back("The same without the wizard:");
  page.paragraphs.push_back("  " + BackupCommand(command, request));
  std::string drills;
  for (const PathProof& path : result.paths) {
    if (path.proven || path.covered_since) continue;
    drills += (drills.empty() ? "  " : "\n  ") + command + " drill " + ShellWord(result.key_name) +
              " --via " + ShellWord(path.path_id);
  }
  if (!drills.empty()) {
    page.paragraphs.push_back("Once the hardware is at hand, prove that it opens:");
    page.paragraphs.push_back(drills);
  }
  page.paragraphs.push_back("And back again:");
  page.paragraphs.push_back("  " + command + " restore " + ShellWord(result.key_name) +
                            " --to FILE");
  return page;
}

}  // namespace keyescrow::agent
