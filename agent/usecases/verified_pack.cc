#include "agent/usecases/verified_pack.h"

#include <algorithm>

#include "agent/usecases/pack_facts.h"
#include "agent/usecases/verify_pack.h"

namespace keyescrow::agent {

Result<report::TarReader> OpenVerifiedPack(Agent* agent, const PackSource& source) {
  const VerifyItem item = VerifyPack(agent, {source.file, source.trust, source.trusted_agent, ""});
  if (item.error) return *item.error;
  const bool vouched = std::ranges::none_of(item.findings, [](const VerifyFinding& finding) {
    return finding.fault == audit::LogFaultName(audit::LogFault::kPackUnvouched);
  });
  if (!vouched) {
    return Error(ErrorCode::kAgentNotTrusted, Action::kFixInput,
                 "nobody vouched for the keys of the pack " + source.file,
                 "give --trust FILE or --agent THUMBPRINT, from another source than the pack");
  }
  return OpenPack(source.file);
}

Status ForSummaries(const report::TarReader& pack,
                    const std::function<Status(std::string_view line)>& visit) {
  for (const std::string_view name : pack.names()) {
    if (!name.starts_with("summaries/")) continue;
    ASSIGN_OR_RETURN(const std::string text, pack.Read(name));
    ASSIGN_OR_RETURN(const auto lines, SplitLines(text));
    for (const std::string_view line : lines) RETURN_IF_ERROR(visit(line));
  }
  return Ok();
}

}  // namespace keyescrow::agent
