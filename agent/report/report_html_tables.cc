#include "agent/report/report_html_tables.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "agent/report/control_map.h"
#include "agent/report/pictures.h"
#include "agent/report/text.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::size_t kKeysInABlock = 200;

std::string Tag(std::string_view tone, std::string_view text) {
  return fmt::format("<span class=\"tag {}\">{}</span>", tone, HtmlText(text));
}

// Foreign isolates text from outside: its direction must not reach what stands beside it.
std::string Foreign(std::string_view text) { return "<bdi>" + HtmlText(text) + "</bdi>"; }
std::string Mono(std::string_view text) {
  return "<bdi class=\"mono\">" + HtmlText(text) + "</bdi>";
}

std::string Sub(const std::string& html) { return "<span class=\"sub\">" + html + "</span>"; }

std::string Time(std::int64_t time) {
  return fmt::format("<time class=\"time\" datetime=\"{}\">{}</time>", FormatUtc(time),
                     DateTime(time));
}

std::string_view ToneOf(std::string_view condition) {
  if (condition == "proven" || condition == "covered" || condition == "completed") return "good";
  if (condition == "broken" || condition == "denied") return "bad";
  return "warn";
}

std::string PathItem(const ReportPath& path, std::int64_t now) {
  std::string item =
      "<li>" + Tag(ToneOf(path.condition), path.condition) + " " + Foreign(path.expression);
  std::string sub = Mono(path.id) + (path.portable ? ", portable" : ", needs this host’s TPM");
  if (path.proven) {
    sub += fmt::format(", last proven <time datetime=\"{}\">{}</time>", FormatUtc(*path.proven),
                       Age(*path.proven, now));
  } else if (path.covered_since) {
    sub += fmt::format(
        ", not opened itself; its recovery key was opened <time datetime=\"{}\">{}</time>",
        FormatUtc(*path.covered_since), Age(*path.covered_since, now));
  } else {
    sub += ", never proven";
  }
  if (!path.failure.empty() && path.condition == "broken") sub += ", failed: " + Mono(path.failure);
  return item + Sub(sub) + "</li>";
}

std::string KeyRow(const ReportKey& key, std::size_t number, const ReportModel& model,
                   std::uint64_t num_findings) {
  std::string facts;
  if (key.escrowed) {
    facts = fmt::format("version {}, escrowed {}", key.version,
                        HtmlText(std::string_view(key.updated).substr(0, 10)));
    if (key.num_versions > 1) facts += fmt::format(", {} versions kept", key.num_versions);
    if (key.host != model.host) facts += ", from " + Foreign(key.host);
    if (!key.declared) facts += ", not declared";
  } else {
    facts = "declared, source " + Mono(key.source);
  }
  std::string row =
      fmt::format("<tr id=\"k{}\"><th scope=\"row\">{}{}", number, Mono(key.name), Sub(facts));
  if (!key.note.empty()) row += Sub("note: " + Foreign(key.note));
  if (!key.agent_trusted) row += Sub("signed by an agent that is not trusted: " + Mono(key.agent));
  row += "</th><td>";
  if (key.escrowed) {
    row += "<ul class=\"plain\">";
    for (const ReportPath& path : key.paths) row += PathItem(path, model.now);
    row += "</ul>";
    if (!key.survival.empty()) row += Sub(HtmlText(key.survival));
  } else {
    row += Tag("bad", "not escrowed");
  }
  row += "</td><td class=\"n\" data-l=\"findings:\">";
  row += num_findings == 0 ? "none" : std::to_string(num_findings);
  return row + "</td></tr>";
}

constexpr std::string_view kKeyHead =
    "<thead><tr><th scope=\"col\" class=\"c-key\">Key</th><th scope=\"col\">Recovery paths</th><th "
    "scope=\"col\" "
    "class=\"n\">Findings</th></tr></thead>";

}  // namespace

std::string Counted(std::uint64_t number, std::string_view thing) {
  return fmt::format("{} {}{}", number, thing, number == 1 ? "" : "s");
}

std::string Age(std::int64_t then, std::int64_t now) {
  const std::int64_t days = (now - then) / 86400;
  if (days <= 0) return "today";
  return Counted(static_cast<std::uint64_t>(days), "day") + " ago";
}

std::string DateTime(std::int64_t time) {
  std::string text = FormatUtc(time).substr(0, 16);
  text[10] = ' ';
  return text;
}

std::string FindingsTable(const ReportModel& model) {
  if (model.findings.empty()) return "<p>No rule is broken.</p>";
  std::map<std::string_view, std::size_t> numbers;
  for (std::size_t i = 0; i < model.keys.size(); ++i) numbers.emplace(model.keys[i].name, i);
  std::vector<const ReportFinding*> ordered;
  for (const ReportFinding& finding : model.findings) ordered.push_back(&finding);
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto* a, const auto* b) { return a->critical && !b->critical; });
  std::string html =
      "<table class=\"cards\"><thead><tr><th scope=\"col\">Severity</th><th scope=\"col\" "
      "class=\"c-key\">Key</th>"
      "<th scope=\"col\">What is wrong, and what to do</th></tr></thead><tbody>";
  for (const ReportFinding* finding : ordered) {
    std::string key = "<span class=\"soft\">the agent</span>";
    if (!finding->key.empty()) {
      const auto found = numbers.find(finding->key);
      key = found == numbers.end()
                ? Mono(finding->key)
                : fmt::format("<a href=\"#k{}\">{}</a>", found->second, Mono(finding->key));
    }
    html += fmt::format("<tr><td>{}</td><th scope=\"row\">{}</th><td>{}{}{}</td></tr>",
                        finding->critical ? Tag("bad", "critical") : Tag("warn", "warning"), key,
                        Foreign(finding->what), Sub("Remedy: " + Foreign(finding->remedy)),
                        Sub("Rule: " + Mono(finding->rule)));
  }
  return html + "</tbody></table>";
}

std::string KeyTables(const ReportModel& model) {
  std::map<std::string_view, std::uint64_t> num_findings;
  for (const ReportFinding& finding : model.findings) ++num_findings[finding.key];
  const auto rows = [&](std::size_t first, std::size_t end) {
    std::string html = "<table class=\"cards\">" + std::string(kKeyHead) + "<tbody>";
    for (std::size_t i = first; i < end; ++i) {
      const auto found = num_findings.find(model.keys[i].name);
      html += KeyRow(model.keys[i], i, model, found == num_findings.end() ? 0 : found->second);
    }
    return html + "</tbody></table>";
  };
  const std::size_t count = model.keys.size();
  if (count <= kKeysInABlock) return rows(0, count);
  std::string html;
  for (std::size_t first = 0; first < count; first += kKeysInABlock) {
    const std::size_t end = std::min(first + kKeysInABlock, count);
    html += fmt::format(
        "<details open><summary>Keys {} to {} <span class=\"soft\">{} … {}</span></summary><div "
        "class=\"block\">",
        first + 1, end, Mono(model.keys[first].name), Mono(model.keys[end - 1].name));
    html += rows(first, end) + "</div></details>";
  }
  return html;
}

std::string ForeignTable(const ReportModel& model) {
  std::string html =
      "<table class=\"cards\"><thead><tr><th scope=\"col\" class=\"c-place\">Where</th><th "
      "scope=\"col\">What it says opens it</th><th scope=\"col\" "
      "class=\"c-who\">Found</th></tr></thead><tbody>";
  for (const ForeignItem& item : model.foreign) {
    std::string where = Mono(item.place) + Sub(Mono(item.kind) + ", " + Foreign(item.item));
    if (!item.volume.empty()) where += Sub("volume " + Mono(item.volume));
    std::string opens = Foreign(item.expression) + Sub(HtmlText(item.survival));
    for (const std::string& caveat : item.caveats) opens += Sub(HtmlText(caveat));
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td data-l=\"opened by:\">{}</td><td "
        "data-l=\"found:\">{}</td></tr>",
        where, opens, Time(item.found));
  }
  return html + "</tbody></table>";
}

std::string ProofAgeTable(const ReportModel& model) {
  const std::vector<AgeBucket> buckets = DrillAges(model);
  std::uint64_t maximum = 0;
  for (const AgeBucket& bucket : buckets) maximum = std::max(maximum, bucket.num_paths);
  std::string html =
      "<table class=\"bars\"><caption>Recovery paths by the age of their last proof</caption>"
      "<thead><tr><th scope=\"col\">Last proven</th><th scope=\"col\"><span "
      "class=\"soft\">Share</span></th><th scope=\"col\" "
      "class=\"n\">Paths</th></tr></thead><tbody>";
  for (const AgeBucket& bucket : buckets) {
    const std::string_view tone = bucket.fresh                     ? "good"
                                  : bucket.label == "never proven" ? "bad"
                                                                   : "warn";
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\"><data data-age=\"{}\" "
        "value=\"{}\">{}</data></td></tr>",
        bucket.label, RowBar(bucket.num_paths, maximum, tone), bucket.label, bucket.num_paths,
        bucket.num_paths);
  }
  return html + "</tbody></table>";
}

std::string ReleaseTable(const ReportModel& model) {
  if (model.releases.empty()) return "<p>No key was released.</p>";
  std::string html =
      "<table class=\"cards\"><thead><tr><th scope=\"col\">When (UTC)</th><th "
      "scope=\"col\" class=\"c-key\">Key</th><th scope=\"col\">Path</th><th scope=\"col\" "
      "class=\"c-who\">Who</th><th scope=\"col\">Why</th><th scope=\"col\" "
      "class=\"c-who\">Outcome</th></tr></thead><tbody>";
  for (const Release& release : model.releases) {
    std::string why = release.reason.empty() ? "<span class=\"soft\">no reason given</span>"
                                             : Foreign(release.reason);
    if (!release.ticket.empty()) why += Sub("ticket " + Foreign(release.ticket));
    std::string outcome =
        Tag(ToneOf(release.outcome),
            release.outcome == "pending" ? "no outcome" : std::string_view(release.outcome));
    if (!release.error.empty()) outcome += Sub(Mono(release.error));
    if (release.imported) {
      outcome += Sub("imported from " + Foreign(release.host) + ": nothing signed it before");
    }
    html += fmt::format(
        "<tr><td>{}{}</td><th scope=\"row\">{}{}</th><td data-l=\"path:\">{}</td><td "
        "data-l=\"by:\">{}</td><td data-l=\"why:\">{}</td><td>{}</td></tr>",
        Time(release.time), Sub(fmt::format("entry {}", release.seq)), Mono(release.key),
        Sub(fmt::format("version {}", release.version)),
        release.path.empty() ? "–" : Mono(release.path), Foreign(release.actor), why, outcome);
  }
  return html + "</tbody></table>";
}

std::string VerificationTable(const ReportModel& model) {
  if (model.verifications.empty()) {
    return "<p>The log has no verification: <code>keyescrow verify --record</code> writes one; "
           "without it, what it says is for whoever ran it to keep.</p>";
  }
  std::string html =
      "<table class=\"cards\"><thead><tr><th scope=\"col\">When (UTC)</th><th "
      "scope=\"col\">Result</th><th scope=\"col\" class=\"c-who\">Who</th><th "
      "scope=\"col\">What</th></tr></thead>"
      "<tbody>";
  for (const Verification& item : model.verifications) {
    html += fmt::format("<tr><td>{}{}</td><td>{}{}</td><td data-l=\"by:\">{}</td><td>{}</td></tr>",
                        Time(item.time), Sub(fmt::format("entry {}", item.seq)),
                        item.passed ? Tag("good", "passed") : Tag("bad", "failed"),
                        item.error.empty() ? std::string() : Sub(Mono(item.error)),
                        Foreign(item.actor), Foreign(item.what));
  }
  return html + "</tbody></table>";
}

std::string ControlTable() {
  std::string html =
      "<table class=\"cards\"><thead><tr><th scope=\"col\" class=\"c-id\">Control</th><th "
      "scope=\"col\">Asks, in "
      "our words</th><th scope=\"col\">Evidence in the pack</th></tr></thead><tbody>";
  for (const Control& control : ControlMap()) {
    html += fmt::format(
        "<tr><th scope=\"row\">{}{}</th><td>{}</td><td data-l=\"evidence:\">{}</td></tr>",
        HtmlText(control.id), Sub(HtmlText(control.standard)), HtmlText(control.asks),
        HtmlText(control.evidence));
  }
  return html + "</tbody></table>";
}

}  // namespace keyescrow::agent::report
