#include "agent/cli/nagios.h"

#include <gtest/gtest.h>

namespace keyescrow::agent {
namespace {

StatusReport ReportOf(std::vector<PathCondition> conditions) {
  StatusReport report;
  report.log_size = 7;
  KeyView key;
  key.name = "prod/db";
  for (const PathCondition condition : conditions) {
    PathView path;
    path.condition = condition;
    key.paths.push_back(path);
  }
  report.keys.push_back(key);
  return report;
}

TEST(Nagios, TellsThatAllComply) {
  const NagiosLine line = FormatNagios(ReportOf({PathCondition::kProven}));
  EXPECT_EQ(line.status, kNagiosOk);
  EXPECT_EQ(line.text,
            "KEYESCROW OK - 1 key complies | keys=1 proven=1 covered=0 stale=0 unproven=0 broken=0 "
            "critical=0 warning=0 log_entries=7\n");
}

TEST(Nagios, NamesTheWorstFindingFirst) {
  StatusReport report = ReportOf({PathCondition::kStale, PathCondition::kBroken});
  report.findings.push_back({"path_stale", "prod/db", "db1", Severity::kWarning, "stale", ""});
  EXPECT_EQ(FormatNagios(report).status, kNagiosWarning);
  report.findings.push_back({"path_broken", "prod/db", "db1", Severity::kCritical, "broken", ""});
  const NagiosLine line = FormatNagios(report);
  EXPECT_EQ(line.status, kNagiosCritical);
  EXPECT_TRUE(line.text.starts_with("KEYESCROW CRITICAL - prod/db: broken (and 1 more) | keys=1"))
      << line.text;
  EXPECT_NE(line.text.find("stale=1 unproven=0 broken=1 critical=1 warning=1"), std::string::npos)
      << line.text;
}

TEST(Nagios, KeepsToOneLineWithoutBars) {
  StatusReport report = ReportOf({});
  report.findings.push_back({"x", "", "db1", Severity::kCritical, "one | two\nthree", ""});
  const std::string text = FormatNagios(report).text;
  EXPECT_TRUE(text.starts_with("KEYESCROW CRITICAL - one / two\\nthree | keys=1")) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1);
}

TEST(Nagios, TellsDamageFromWhatIsNotKnown) {
  const auto status = [](ErrorCode code) {
    return FormatNagiosError(Error(code, Action::kFixInput, "it failed", "do something")).status;
  };
  EXPECT_EQ(status(ErrorCode::kNotInitialized), kNagiosUnknown);
  EXPECT_EQ(status(ErrorCode::kNotFound), kNagiosUnknown);
  EXPECT_EQ(status(ErrorCode::kStoreBusy), kNagiosUnknown);
  EXPECT_EQ(status(ErrorCode::kStoreDamaged), kNagiosCritical);
  EXPECT_EQ(status(ErrorCode::kLogDamaged), kNagiosCritical);
}

}  // namespace
}  // namespace keyescrow::agent
