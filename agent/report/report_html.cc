#include "agent/report/report_html.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "agent/report/embedded.h"
#include "agent/report/pictures.h"
#include "agent/report/report_html_tables.h"
#include "agent/report/text.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::report {
namespace {

std::string Section(std::string_view id, std::string_view title, const std::string& body) {
  return fmt::format("<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}</h2>{2}</section>\n", id,
                     title, body);
}

std::string Sentences(const std::vector<std::string>& sentences) {
  std::string html = "<ul class=\"sentences\">";
  for (const std::string& sentence : sentences) html += "<li>" + HtmlText(sentence) + "</li>";
  return html + "</ul>";
}

std::string Fact(std::string_view title, const std::string& html) {
  return fmt::format("<dt>{}</dt><dd>{}</dd>", title, html);
}

std::string Code(std::string_view text) {
  return "<bdi class=\"mono\">" + HtmlText(text) + "</bdi>";
}

// Period: "90 days", "36 hours".
std::string Period(std::int64_t seconds) {
  constexpr std::int64_t kHour = 3600;
  constexpr std::int64_t kDay = 24 * kHour;
  if (seconds % kDay == 0) return Counted(static_cast<std::uint64_t>(seconds / kDay), "day");
  if (seconds % kHour == 0) return Counted(static_cast<std::uint64_t>(seconds / kHour), "hour");
  return Counted(static_cast<std::uint64_t>(seconds), "second");
}

class Page {
 public:
  explicit Page(const ReportModel& model) : model_(model), figures_(FiguresOf(model)) {}

  std::string Render() {
    const std::string title = "Key escrow on " + HtmlText(model_.host);
    std::string html = Head(title);
    html +=
        "<body><a class=\"skip\" href=\"#findings\">Skip to the findings</a>\n"
        "<div class=\"page\"><header><p class=\"over\">keyescrow evidence report · ";
    html += fmt::format("<time datetime=\"{}\">{} UTC</time></p><h1>{}</h1>", FormatUtc(model_.now),
                        DateTime(model_.now), title);
    html += Verdict() + Tiles() + Navigation() + "</header>\n<main>";
    html += Section("population", "What this report covers", Population());
    html += Section("coverage", "Coverage", CoverageBody());
    html += Section("findings", "Findings", FindingsTable(model_));
    html += Section("keys", "Keys and their recovery paths", KeyTables(model_));
    if (!model_.foreign.empty()) {
      html += Section("foreign", "Escrows of other tools", ForeignEscrows());
    }
    html += Section("proofs", "Proofs", Proofs());
    html += Section("releases", "Releases", Releases());
    html += Section("verifications", "Verifications", Verifications());
    html += Section("unchecked", "What was not checked", Sentences(model_.not_checked));
    html += Section("controls", "Controls that this speaks to",
                    "<p class=\"note\">Requirements are paraphrased; the standards’ own texts "
                    "count. File names are those of the evidence pack that "
                    "<code>keyescrow audit export</code> writes.</p>" +
                        ControlTable());
    html += fmt::format(
        "</main>\n<footer>Made by keyescrow {} on {}. This page has no script and asks for nothing "
        "outside of itself. On its own it is a statement; the evidence pack lets anyone check "
        "it.</footer></div></body></html>\n",
        HtmlText(model_.version), HtmlText(model_.host));
    return html;
  }

 private:
  std::uint64_t Get(std::string_view name) const { return FigureOf(figures_, name); }
  std::string Mark(std::string_view name) const { return FigureMark(name, Get(name)); }
  // MarkOf is Mark with the word for what is counted.
  std::string MarkOf(std::string_view name, std::string_view one, std::string_view many) const {
    return fmt::format("{} {}", Mark(name), Get(name) == 1 ? one : many);
  }

  std::string Head(const std::string& title) const {
    const std::string_view css = kReportCss;
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
        "'sha256-{}'; base-uri 'none'; form-action 'none'\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"referrer\" content=\"no-referrer\"><meta name=\"robots\" "
        "content=\"noindex\">\n"
        "<title>{} – keyescrow</title>\n<style>{}</style></head>\n",
        EncodeBase64(Sha256(AsBytes(css))), title, css);
  }

  std::string Verdict() const {
    const std::uint64_t num_critical = Get("findings_critical");
    const std::uint64_t num_warnings = Get("findings_warning");
    std::string_view tone = "good";
    std::string text = "Complies with the policy";
    std::string_view tail;
    std::string rest = "No rule is broken.";
    if (num_critical != 0) {
      tone = "bad";
      text = "Does not comply with the policy";
    } else if (num_warnings != 0) {
      tone = "warn";
      tail = ", with warnings";
    }
    if (num_critical + num_warnings != 0) {
      rest = fmt::format("{} critical and {} {}, each with its remedy below.",
                         Mark("findings_critical"), Mark("findings_warning"),
                         num_warnings == 1 ? "warning" : "warnings");
    }
    return fmt::format(
        "<p class=\"verdict {}\"><strong>{} <bdi>{}</bdi>{}</strong><span>{}</span></p>", tone,
        text, HtmlText(model_.policy), tail, rest);
  }

  std::string Tile(std::string_view title, const std::string& html) const {
    return fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", title, html);
  }

  std::string Tiles() const {
    std::string oldest = "–";
    std::int64_t oldest_time = model_.now;
    bool any = false;
    for (const ReportKey& key : model_.keys) {
      for (const ReportPath& path : key.paths) {
        if (!path.proven) continue;
        any = true;
        oldest_time = std::min(oldest_time, *path.proven);
      }
    }
    if (any) {
      const std::int64_t days = (model_.now - oldest_time) / 86400;
      oldest = fmt::format("{} <small>{}</small>", days, days == 1 ? "day" : "days");
    }
    return "<dl class=\"tiles\">" +
           Tile("Declared keys escrowed", Mark("keys_declared_escrowed") + " <small>of " +
                                              Mark("keys_declared") + "</small>") +
           Tile("Keys proven restorable",
                Mark("keys_proven") + " <small>of " + Mark("keys") + "</small>") +
           Tile("Oldest proof of a path", oldest) +
           Tile("Keys released", Mark("releases_completed") + " <small>of " + Mark("releases") +
                                     " asked for, " + Mark("releases_pending") +
                                     " without outcome</small>") +
           "</dl>";
  }

  std::string Navigation() const {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kLinks = {{
        {"population", "Scope"},
        {"coverage", "Coverage"},
        {"findings", "Findings"},
        {"keys", "Keys"},
        {"foreign", "Other tools"},
        {"proofs", "Proofs"},
        {"releases", "Releases"},
        {"verifications", "Verifications"},
        {"unchecked", "Not checked"},
        {"controls", "Controls"},
    }};
    std::string html = "<nav aria-label=\"Sections\"><ul>";
    for (const auto& [id, text] : kLinks) {
      if (id == "foreign" && model_.foreign.empty()) continue;
      html += fmt::format("<li><a href=\"#{}\">{}</a></li>", id, text);
    }
    return html + "</ul></nav>";
  }

  std::string Population() const {
    const auto& checkpoint = model_.checkpoint;
    std::string html = fmt::format(
        "<p>{} <strong>{}</strong> in all: {} declared in agent.toml, {} escrowed, {} escrowed "
        "and not declared, in {} kept {}.</p>",
        HtmlText("Population: " + std::string(kQuery) + "."), MarkOf("keys", "key", "keys"),
        Mark("keys_declared"), Mark("keys_escrowed"), Mark("keys_not_declared"),
        Mark("key_versions"), Get("key_versions") == 1 ? "version" : "versions");
    html += "<dl class=\"facts\">" + Fact("Host", Code(model_.host)) +
            Fact("Agent key", Code(model_.agent)) + Fact("Policy", Code(model_.policy)) +
            Fact("Computed at checkpoint",
                 MarkOf("log_entries", "entry", "entries") + ", root " + Code(checkpoint.root)) +
            Fact("Log", Code(checkpoint.origin)) + "</dl>";
    return html + "<h3>What was checked for it</h3>" + Sentences(model_.checked);
  }

  std::string CoverageBody() const {
    const std::array<Share, 4> keys = {{
        {"proven by a path that needs no TPM", "", Get("keys_proven"), "good"},
        {"covered by a recovery key", "keys_covered", Get("keys_covered"), "good"},
        {"escrowed, not proven lately", "keys_not_proven", Get("keys_not_proven"), "warn"},
        {"not escrowed", "keys_not_escrowed", Get("keys_not_escrowed"), "bad"},
    }};
    const std::array<Share, 5> paths = {{
        {"proven", "paths_proven", Get("paths_proven"), "good"},
        {"covered", "paths_covered", Get("paths_covered"), "good"},
        {"stale", "paths_stale", Get("paths_stale"), "warn"},
        {"never proven", "paths_unproven", Get("paths_unproven"), "warn"},
        {"broken", "paths_broken", Get("paths_broken"), "bad"},
    }};
    return "<p class=\"note\">Escrowed means durable and signed. Proven means that the path was "
           "reopened from the written bytes at the newest revision" +
           ProofPeriod() +
           " Covered means that the recovery key that a path goes to was opened so lately, and "
           "this "
           "envelope was not.</p>" +
           ShareBar("by-key", "Keys", keys) + ShareBar("by-path", "Recovery paths", paths);
  }

  // ProofPeriod completes what "proven" means: how old the proof may be.
  std::string ProofPeriod() const {
    if (!model_.drill_every_shortest_s) {
      return "; the policy asks for no drills, so that a proof does not grow stale.";
    }
    const std::string shortest = Period(*model_.drill_every_shortest_s);
    const std::string longest = Period(*model_.drill_every_longest_s);
    if (shortest == longest) return ", in the last " + shortest + ", as the policy asks.";
    return fmt::format(", as lately as the rules of the key ask: in the last {} to {}.", shortest,
                       longest);
  }

  std::string ForeignEscrows() const {
    return fmt::format(
               "<p class=\"note\">{} of clevis or systemd-cryptenroll, as {} of "
               "{}: keyescrow does not hold {}, and has not proven {}. No key of the population is "
               "counted as escrowed by {}.</p>",
               MarkOf("foreign_escrows", "escrow", "escrows"),
               Get("foreign_escrows") == 1 ? "it says" : "they say",
               Get("foreign_escrows") == 1 ? "itself" : "themselves", Them(), Them(), Them()) +
           ForeignTable(model_);
  }
  std::string_view Them() const { return Get("foreign_escrows") == 1 ? "it" : "them"; }

  std::string Proofs() const {
    return fmt::format(
               "<p class=\"note\">The log holds {} that passed and {} that "
               "failed.</p>",
               MarkOf("drills_passed", "drill", "drills"), Mark("drills_failed")) +
           ProofAgeTable(model_);
  }

  std::string Releases() const {
    return fmt::format(
               "<p class=\"note\">Every restore is logged before anything is released: {} "
               "completed, {} failed, {} denied, {} interrupted, {} without a logged outcome.</p>",
               Mark("releases_completed"), Mark("releases_failed"), Mark("releases_denied"),
               Mark("releases_interrupted"), Mark("releases_pending")) +
           ReleaseTimeline(model_.releases) + ReleaseTable(model_);
  }

  std::string Verifications() const {
    return fmt::format("<p class=\"note\">{} passed, {} failed.</p>", Mark("verifications_passed"),
                       Mark("verifications_failed")) +
           VerificationTable(model_);
  }

  const ReportModel& model_;
  std::vector<Figure> figures_;
};

}  // namespace

std::string ReportHtml(const ReportModel& model) { return Page(model).Render(); }

}  // namespace keyescrow::agent::report
