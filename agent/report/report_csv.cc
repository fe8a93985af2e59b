#include <array>

#include "agent/report/report_json.h"
#include "agent/report/text.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::report {
namespace {

// The columns, in their order.
enum Column : std::uint8_t {
  kRecord,
  kName,
  kValue,
  kKey,
  kVersion,
  kPath,
  kFactors,
  kState,
  kProven,
  kTime,
  kActor,
  kReason,
  kTicket,
  kError,
  kRemedy,
  kSeq,
  kOutcomeSeq,
  kNumColumns,
};
constexpr std::array<std::string_view, kNumColumns> kTitles = {
    "record", "name",  "value",  "key",    "version", "path",   "factors", "state",       "proven",
    "time",   "actor", "reason", "ticket", "error",   "remedy", "seq",     "outcome_seq",
};

using Row = std::array<std::string, kNumColumns>;

std::string Cell(std::string_view text) {
  std::string cell = VisibleText(text);
  // A spreadsheet runs what starts so.
  if (!cell.empty() && std::string_view("=+-@").find(cell.front()) != std::string_view::npos) {
    cell.insert(cell.begin(), '\'');
  }
  if (cell.find_first_of(",\"\n\r") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

class Csv {
 public:
  Csv() {
    for (std::size_t i = 0; i < kTitles.size(); ++i) {
      text_ += (i == 0 ? "" : ",") + std::string(kTitles[i]);
    }
    text_ += "\r\n";
  }
  void Add(const Row& row) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i != 0) text_ += ',';
      text_ += Cell(row[i]);
    }
    text_ += "\r\n";
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

Row NewRow(std::string_view record) {
  Row row;
  row[kRecord] = record;
  return row;
}

void AddKey(const ReportKey& key, Csv& csv) {
  Row row = NewRow("key");
  row[kKey] = key.name;
  if (key.escrowed) row[kVersion] = std::to_string(key.version);
  const Coverage coverage = CoverageOf(key);
  row[kState] = coverage == Coverage::kMissing   ? "not escrowed"
                : coverage == Coverage::kProven  ? "proven"
                : coverage == Coverage::kCovered ? "covered"
                                                 : "escrowed";
  row[kName] = key.declared ? "declared" : "not declared";
  row[kTime] = key.updated;
  row[kReason] = key.note;
  csv.Add(row);
  for (const ReportPath& path : key.paths) {
    Row line = NewRow("path");
    line[kKey] = key.name;
    line[kVersion] = std::to_string(key.version);
    line[kPath] = path.id;
    line[kFactors] = path.expression;
    line[kState] = path.condition;
    if (path.proven) line[kProven] = FormatUtc(*path.proven);
    if (path.covered_since) {
      line[kReason] = "its recovery key was opened at " + FormatUtc(*path.covered_since);
    }
    line[kError] = path.failure;
    csv.Add(line);
  }
}

void AddForeign(const ForeignItem& item, Csv& csv) {
  Row row = NewRow("foreign");
  row[kName] = item.kind;
  row[kValue] = item.volume;
  row[kKey] = item.place;
  row[kPath] = item.item;
  row[kFactors] = item.expression;
  row[kState] = "not held, not proven";
  row[kTime] = FormatUtc(item.found);
  row[kReason] = item.survival;
  csv.Add(row);
}

void AddRelease(const Release& release, Csv& csv) {
  Row row = NewRow("release");
  if (release.imported) row[kValue] = "imported";
  row[kKey] = release.key;
  row[kVersion] = std::to_string(release.version);
  row[kPath] = release.path;
  row[kState] = release.outcome;
  row[kTime] = FormatUtc(release.time);
  row[kActor] = release.actor;
  row[kReason] = release.reason;
  row[kTicket] = release.ticket;
  row[kError] = release.error;
  row[kSeq] = std::to_string(release.seq);
  if (release.outcome_seq) row[kOutcomeSeq] = std::to_string(*release.outcome_seq);
  csv.Add(row);
}

}  // namespace

std::string ReportCsv(const ReportModel& model) {
  Csv csv;
  const auto add_fact = [&](std::string_view name, std::string value) {
    Row row = NewRow("fact");
    row[kName] = name;
    row[kValue] = std::move(value);
    csv.Add(row);
  };
  add_fact("host", model.host);
  add_fact("agent", model.agent);
  add_fact("policy", model.policy);
  add_fact("evaluated", FormatUtc(model.now));
  add_fact("complies", Complies(model) ? "true" : "false");
  add_fact("query", std::string(kQuery));
  add_fact("checkpoint_origin", model.checkpoint.origin);
  add_fact("checkpoint_root", model.checkpoint.root);
  for (const Figure& figure : FiguresOf(model)) {
    Row row = NewRow("figure");
    row[kName] = figure.name;
    row[kValue] = std::to_string(figure.value);
    csv.Add(row);
  }
  for (const ReportKey& key : model.keys) AddKey(key, csv);
  for (const ForeignItem& item : model.foreign) AddForeign(item, csv);
  for (const ReportFinding& finding : model.findings) {
    Row row = NewRow("finding");
    row[kName] = finding.rule;
    row[kKey] = finding.key;
    row[kState] = finding.critical ? "critical" : "warning";
    row[kReason] = finding.what;
    row[kRemedy] = finding.remedy;
    csv.Add(row);
  }
  for (const Release& release : model.releases) AddRelease(release, csv);
  for (const Verification& item : model.verifications) {
    Row row = NewRow("verification");
    row[kState] = item.passed ? "passed" : "failed";
    row[kTime] = FormatUtc(item.time);
    row[kActor] = item.actor;
    row[kReason] = item.what;
    row[kError] = item.error;
    row[kSeq] = std::to_string(item.seq);
    csv.Add(row);
  }
  for (const std::string& text : model.checked) {
    Row row = NewRow("checked");
    row[kReason] = text;
    csv.Add(row);
  }
  for (const std::string& text : model.not_checked) {
    Row row = NewRow("not_checked");
    row[kReason] = text;
    csv.Add(row);
  }
  return csv.Take();
}

}  // namespace keyescrow::agent::report
