// The report from a model that somebody hostile wrote: figures agree, nothing gets through.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>

#include "agent/report/control_map.h"
#include "agent/report/embedded.h"
#include "agent/report/pictures.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
#include "agent/report/report_read.h"
#include "agent/report/text.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::int64_t kNow = 1'800'000'000;
constexpr const char* kHostile =
    "<script>alert(1)</script>\"'& \xe2\x80\xae\x07 <img src=x onerror=alert(2)> \xff";

ReportPath MakePath(std::string id, std::string condition, std::optional<std::int64_t> proven,
                    bool portable = true) {
  ReportPath path;
  path.id = std::move(id);
  path.expression = "password & token:ops";
  path.portable = portable;
  path.condition = std::move(condition);
  path.proven = proven;
  return path;
}

ReportKey MakeKey(std::string name, std::vector<ReportPath> paths) {
  ReportKey key;
  key.name = std::move(name);
  key.declared = true;
  key.source = "file:/etc/key";
  key.escrowed = true;
  key.version = 1;
  key.revision = 1;
  key.num_versions = 2;
  key.host = "db1";
  key.updated = "2026-11-01T00:00:00Z";
  key.paths = std::move(paths);
  return key;
}

ReportModel HostileModel() {
  ReportModel model;
  model.host = "db1";
  model.agent = "thumb";
  model.policy = "builtin-1";
  model.version = "0.1.0";
  model.now = kNow;
  model.checkpoint = {"keyescrow.log/db1/x", 42, "AAAA", "note\n"};
  model.keys.push_back(MakeKey("a", {MakePath("token-ops", "proven", kNow - 86400),
                                     MakePath("tpm", "stale", kNow - 100 * 86400, false)}));
  model.keys.push_back(MakeKey("b", {MakePath("tpm", "proven", kNow, false)}));
  model.keys.back().note = kHostile;
  model.keys.push_back(MakeKey("c", {MakePath("token-ops", "unproven", {})}));
  ReportKey missing;
  missing.name = "d";
  missing.declared = true;
  missing.source = kHostile;
  model.keys.push_back(missing);
  model.findings.push_back({"declared_not_escrowed", "d", true, kHostile, kHostile});
  model.findings.push_back({"path_stale", "a", false, "stale", "drill it"});
  Release release;
  release.time = kNow - 5;
  release.key = "a";
  release.actor = kHostile;
  release.reason = kHostile;
  release.ticket = "=HYPERLINK(1)";
  release.outcome = "pending";
  model.releases.push_back(release);
  release.host = kHostile;
  release.outcome = "completed";
  release.imported = true;
  model.releases.push_back(release);
  model.verifications.push_back({7, kNow, false, kHostile, kHostile, "log_damaged"});
  model.not_checked = {"that a path opens"};
  model.foreign.push_back(
      {kHostile, "jwe", "clevis-sss", "", "2 of (tpm, fido2)", kHostile, {kHostile}, "AAAA", kNow});
  return model;
}

TEST(ReportFigures, CountsEachKeyOnce) {
  const auto figures = FiguresOf(HostileModel());
  EXPECT_EQ(FigureOf(figures, "keys"), 4U);
  EXPECT_EQ(FigureOf(figures, "keys_escrowed"), 3U);
  EXPECT_EQ(FigureOf(figures, "keys_proven"), 1U);      // a
  EXPECT_EQ(FigureOf(figures, "keys_not_proven"), 2U);  // b needs its TPM, c was never proven
  EXPECT_EQ(FigureOf(figures, "keys_not_escrowed"), 1U);
  EXPECT_EQ(FigureOf(figures, "key_versions"), 6U);
  EXPECT_EQ(FigureOf(figures, "findings_critical"), 1U);
  EXPECT_EQ(FigureOf(figures, "releases_pending"), 1U);
  EXPECT_EQ(FigureOf(figures, "verifications_failed"), 1U);
  EXPECT_FALSE(Complies(HostileModel()));
}

TEST(ReportFigures, WhatARecoveryKeyCoversIsNeitherProvenNorUnproven) {
  ReportModel model;
  model.now = kNow;
  ReportPath covered = MakePath("team", "covered", {});
  covered.covered_since = kNow - 5 * 86400;
  model.keys.push_back(MakeKey("a", {covered}));
  model.keys.push_back(MakeKey("b", {covered, MakePath("token-ops", "proven", kNow)}));
  const auto figures = FiguresOf(model);
  EXPECT_EQ(FigureOf(figures, "keys_covered"), 1U);
  EXPECT_EQ(FigureOf(figures, "keys_proven"), 1U);
  EXPECT_EQ(FigureOf(figures, "keys_not_proven"), 0U);
  EXPECT_EQ(FigureOf(figures, "paths_covered"), 2U);
  EXPECT_EQ(FigureOf(figures, "paths_unproven"), 0U);
  EXPECT_NE(ReportHtml(model).find("its recovery key was opened <time datetime=\"" +
                                   FormatUtc(kNow - 5 * 86400)),
            std::string::npos);
  EXPECT_NE(ReportCsv(model).find("its recovery key was opened at"), std::string::npos);
}

TEST(ReportFigures, PutsAgesIntoTheirBuckets) {
  ReportModel model;
  model.now = kNow;
  for (const std::int64_t days : {0, 7, 8, 30, 60, 90, 91, 181}) {
    model.keys.push_back(MakeKey("k", {MakePath("p", "proven", kNow - days * 86400)}));
  }
  model.keys.push_back(MakeKey("future", {MakePath("p", "proven", kNow + 10)}));
  model.keys.push_back(MakeKey("never", {MakePath("p", "unproven", {})}));
  std::vector<std::uint64_t> counts;
  for (const AgeBucket& bucket : DrillAges(model)) counts.push_back(bucket.num_paths);
  EXPECT_EQ(counts, (std::vector<std::uint64_t>{3, 2, 1, 1, 1, 1, 1}));
}

TEST(ReportHtml, EscapesWhatComesFromOutside) {
  const std::string html = ReportHtml(HostileModel());
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("\xe2\x80\xae"), std::string::npos);
  EXPECT_EQ(html.find('\x07'), std::string::npos);
  EXPECT_EQ(html.find('\xff'), std::string::npos);
  EXPECT_NE(html.find("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp; U+202EU+0007"),
            std::string::npos);
}

TEST(ReportHtml, FetchesNothingAndStylesByOneSheetAlone) {
  const std::string html = ReportHtml(HostileModel());
  EXPECT_NE(html.find("default-src 'none'; style-src 'sha256-"), std::string::npos);
  for (const char* word : {" style=", "http://", "https://", "url(", "@import", " src=", "<link"}) {
    const std::size_t at = html.find(word);
    // The hostile text holds one of them, escaped.
    EXPECT_TRUE(at == std::string::npos || std::string(word) == " src=") << word;
  }
}

TEST(ReportHtml, HasTheFiguresOfTheJson) {
  const ReportModel model = HostileModel();
  const std::string html = ReportHtml(model);
  const auto figures = ReportDocument(model)["figures"];
  const std::regex mark("data-figure=\"([a-z_]+)\" value=\"([0-9]+)\">([0-9]+)<");
  std::size_t count = 0;
  for (std::sregex_iterator it(html.begin(), html.end(), mark), end; it != end; ++it, ++count) {
    EXPECT_EQ(figures.at((*it)[1].str()).get<std::uint64_t>(), std::stoull((*it)[2].str()));
    EXPECT_EQ((*it)[2].str(), (*it)[3].str());
  }
  EXPECT_GE(count, figures.size() - 2);
}

TEST(ReportHtml, IsTheSameForTheSameModel) {
  EXPECT_EQ(ReportHtml(HostileModel()), ReportHtml(HostileModel()));
  EXPECT_EQ(ReportJson(HostileModel()), ReportJson(HostileModel()));
}

// What a pack's verifier does: whatever is in a report, it is made anew from its JSON.
TEST(ReportRead, MakesTheSameAgain) {
  const std::string json = ReportJson(HostileModel());
  const auto model = ReadReportJson(json);
  ASSERT_TRUE(model);
  EXPECT_EQ(ReportJson(*model), json);
  EXPECT_EQ(ReportCsv(*model), ReportCsv(*ReadReportJson(ReportJson(*model))));
  const auto document = nlohmann::ordered_json::parse(json);
  for (const auto& [name, value] : document.items()) {
    auto other = document;
    other.erase(name);
    const auto read = ReadReportJson(other.dump());
    EXPECT_TRUE(!read || ReportJson(*read) != other.dump(2) + "\n") << name;
  }
  auto other = document;
  other["form"] = kReportForm + 1;
  EXPECT_FALSE(ReadReportJson(other.dump()));
  EXPECT_EQ(FormOf(other.dump()), kReportForm + 1);
  for (const char* text : {"", "[]", "null", "{", "{\"form\":1}", "{\"form\":1,\"keys\":[7]}"}) {
    EXPECT_FALSE(ReadReportJson(text)) << text;
  }
}

// A time before 1970, as a pack of somebody hostile may state, draws nothing out of bounds.
TEST(ReportRead, DrawsTimesBeforeTheEpoch) {
  std::vector<Release> releases(2);
  releases[0].time = -5;
  releases[1].time = -86400 * 3000LL + 7;
  releases[0].outcome = releases[1].outcome = "completed";
  EXPECT_NE(ReleaseTimeline(releases).find("1969-12-31"), std::string::npos);
}

// Packs state the form of their report. Where this fails, the same facts give other bytes: raise
// kReportForm (and FORM in verify.py), and only then write the new hash here.
TEST(ReportForm, IsRaisedWithItsBytes) {
  const ReportModel model = *ReadReportJson(ReportJson(HostileModel()));
  const std::string all =
      ReportJson(model) + ReportCsv(model) + ReportHtml(model) + ControlsMarkdown();
  EXPECT_EQ(kReportForm, 4U);
  EXPECT_EQ(ToHex(Sha256(AsBytes(all))),
            "2791937ecb420f02b39587e6376196b844d66d87abe8cf88048218577d8d1b72");
  const std::string_view verify_py = kVerifyPy;
  EXPECT_NE(verify_py.find("CONTROLS = \"" + ToHex(Sha256(AsBytes(ControlsMarkdown()))) + "\""),
            std::string_view::npos);
  EXPECT_NE(verify_py.find("\nFORM = " + std::to_string(kReportForm) + " "),
            std::string_view::npos);
}

TEST(ReportHtml, StaysUsableWithTenThousandKeys) {
  ReportModel model = HostileModel();
  model.keys.clear();
  for (int i = 0; i < 10000; ++i) {
    model.keys.push_back(
        MakeKey("prod/service/" + std::to_string(i),
                {MakePath("token-ops", "proven", kNow), MakePath("tpm", "proven", kNow, false)}));
  }
  const std::string html = ReportHtml(model);
  EXPECT_LT(html.size(), 10U << 20);
  EXPECT_NE(html.find("prod/service/9999<"), std::string::npos);
  EXPECT_NE(html.find("Keys 9801 to 10000"), std::string::npos);
}

TEST(ReportCsv, QuotesAndDefusesFormulas) {
  const std::string csv = ReportCsv(HostileModel());
  EXPECT_EQ(csv.find(",=HYPERLINK"), std::string::npos);
  EXPECT_NE(csv.find(",'=HYPERLINK(1),"), std::string::npos);
  EXPECT_NE(csv.find("figure,keys_escrowed,3,"), std::string::npos);
  EXPECT_NE(csv.find("\"<script>alert(1)</script>\"\"'& U+202EU+0007"), std::string::npos);
}

TEST(ReportPictures, ManyReleasesStayOnePicture) {
  std::vector<Release> releases(20000);
  for (std::size_t i = 0; i < releases.size(); ++i) {
    releases[i].time = kNow + static_cast<std::int64_t>(i) * 3600;
    releases[i].outcome = i % 2 == 0 ? "completed" : "failed";
  }
  const std::string svg = ReleaseTimeline(releases);
  EXPECT_LT(svg.size(), 40000U);
  EXPECT_NE(svg.find("10000 completed"), std::string::npos);
  EXPECT_EQ(ReleaseTimeline({}), "");
}

TEST(ControlMap, NamesEveryControlOnce) {
  std::vector<std::string> ids;
  for (const Control& control : ControlMap()) {
    ids.push_back(std::string(control.standard) + std::string(control.id));
    EXPECT_FALSE(control.asks.empty());
    EXPECT_FALSE(control.evidence.empty());
  }
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
  EXPECT_EQ(ids.size(), 28U);
}

}  // namespace
}  // namespace keyescrow::agent::report
