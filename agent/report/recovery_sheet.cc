#include "agent/report/recovery_sheet.h"

#include <fmt/core.h>

#include <algorithm>

#include "agent/report/embedded.h"
#include "agent/report/qr_code.h"
#include "agent/report/sheet_wording.h"
#include "agent/report/text.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/sheet_lines.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::size_t kLongNameChars = 36;  // from here on a smaller heading
// What the first page has room for beside six codes, in lines, and alone.
constexpr std::size_t kLinesBesideCodes = 6;
constexpr std::size_t kLinesAlone = 44;
constexpr std::size_t kLinesOfAPage = 60;
constexpr std::size_t kNeedsChars = 76;
constexpr std::size_t kShortExpressionChars = 28;  // stays on one line
constexpr std::size_t kNoteChars = 72;

std::string Code(std::string_view text) { return "<code>" + HtmlText(text) + "</code>"; }

std::size_t DivideUp(std::size_t number, std::size_t by) { return (number + by - 1) / by; }

std::size_t LinesOf(const RecoverySheet& sheet) {
  std::size_t lines = DivideUp(sheet.note.size(), kNoteChars);
  for (const SheetPath& path : sheet.paths) {
    std::size_t chars = 0;
    for (const std::string& need : path.needs) chars += need.size() + 2;
    lines += std::max(DivideUp(chars, kNeedsChars),
                      DivideUp(path.expression.size(), kShortExpressionChars));
  }
  if (sheet.key_name.size() > kLongNameChars) lines += sheet.key_name.size() / 64;
  return lines;
}

// Page layout of one sheet: how many codes, where they stand, how many pages it takes.
struct Layout {
  std::size_t num_codes = kSheetCodesOnFirstPage;
  bool together = true;  // text and codes on one page
  std::size_t num_text_pages = 1;
  std::size_t num_pages = 1;
};

Layout LayOut(const RecoverySheet& sheet) {
  Layout layout;
  const std::size_t data_chars = kSheetCodeChars - envelope::kMaxSheetLineHeaderChars;
  layout.num_codes = std::max(kSheetCodesOnFirstPage, DivideUp(sheet.packed.size(), data_chars));
  const std::size_t lines = LinesOf(sheet);
  layout.together = layout.num_codes == kSheetCodesOnFirstPage && lines <= kLinesBesideCodes;
  if (!layout.together) {
    if (lines > kLinesAlone) {
      layout.num_text_pages += DivideUp(lines - kLinesAlone, kLinesOfAPage);
    }
    layout.num_pages = layout.num_text_pages + DivideUp(layout.num_codes, kSheetCodesPerPage);
  }
  return layout;
}

class Page {
 public:
  Page(const RecoverySheet& sheet, const Layout& layout, std::vector<std::string> pictures)
      : sheet_(sheet), layout_(layout), pictures_(std::move(pictures)) {}

  std::string Render() const {
    std::string html = Head() + "<body>\n" + FirstPage();
    if (layout_.together) {
      html += "<section class=\"codes\" aria-label=\"the envelope\">" +
              Figures(0, layout_.num_codes) + "</section>\n</main>\n";
    } else {
      html += "</main>\n";
      std::size_t page = layout_.num_text_pages;
      for (std::size_t first = 0; first < layout_.num_codes; first += kSheetCodesPerPage) {
        html += CodePage(++page, first, std::min(first + kSheetCodesPerPage, layout_.num_codes));
      }
    }
    return html + "</body></html>\n";
  }

 private:
  std::string Title() const {
    return fmt::format("Recovery sheet: {} version {}", HtmlText(sheet_.key_name),
                       sheet_.key_version);
  }

  std::string Head() const {
    const std::string_view css = kRecoverySheetCss;
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
        "'sha256-{}'; base-uri 'none'; form-action 'none'\">\n"
        "<meta name=\"referrer\" content=\"no-referrer\"><meta name=\"robots\" "
        "content=\"noindex\">\n"
        "<title>{} – keyescrow</title>\n<style>{}</style></head>\n",
        EncodeBase64(Sha256(AsBytes(css))), Title(), css);
  }

  std::string Header(std::size_t page, std::string_view level) const {
    return fmt::format(
        "<header><p class=\"over\"><span>Recovery sheet of keyescrow {}</span>"
        "<span>printed {} · page {} of {}</span></p>"
        "<{level}{}>{}</{level}><p class=\"what\">version {} of host {}</p></header>\n",
        HtmlText(sheet_.program_version), HtmlText(sheet_.printed), page, layout_.num_pages,
        sheet_.key_name.size() > kLongNameChars ? " class=\"long\"" : "", HtmlText(sheet_.key_name),
        sheet_.key_version, HtmlText(sheet_.host), fmt::arg("level", level));
  }

  std::string FirstPage() const {
    std::string html = "<main class=\"page\">\n" + Header(1, "h1");
    html += "<p>" + HtmlText(WhatItIs(sheet_, SheetForm::kCodes)) +
            "</p>\n<div class=\"columns\"><section><h2>" + "To restore the key</h2><ol>";
    for (const SheetStep& step : StepsOf(sheet_, SheetForm::kCodes, layout_.num_codes)) {
      html += "<li>" + HtmlText(step.text);
      if (!step.command.empty()) html += " " + Code(step.command);
      html += "</li>";
    }
    const SheetStep without = WithoutKeyescrow();
    html += "</ol>\n<p class=\"without\"><b>Without keyescrow:</b> " + HtmlText(without.text) +
            "</p></section>\n" + Facts() + "</div>\n" + Paths();
    if (!sheet_.note.empty()) html += "<p><b>Note:</b> " + HtmlText(sheet_.note) + "</p>\n";
    if (!layout_.together) {
      html += fmt::format("<p><b>The {} codes are on the next {}.</b></p>\n", layout_.num_codes,
                          layout_.num_codes > kSheetCodesPerPage ? "pages" : "page");
    }
    return html;
  }

  std::string Facts() const {
    std::string html = "<dl aria-label=\"which envelope this is\">";
    for (const SheetFact& fact : FactsOf(sheet_)) {
      html += "<dt>" + HtmlText(fact.name) + "</dt><dd>";
      html += fact.is_code ? "<span class=\"mono\">" + HtmlText(fact.value) + "</span>"
                           : HtmlText(fact.value);
      html += "</dd>";
    }
    return html + "</dl>";
  }

  std::string Paths() const {
    std::string html =
        "<table><caption>Ways in: one is enough, and all that it needs must be at "
        "hand</caption><thead><tr><th scope=\"col\">--via</th><th scope=\"col\">factors</th>"
        "<th scope=\"col\">bring</th></tr></thead><tbody>";
    for (const SheetPath& path : sheet_.paths) {
      html += "<tr><th scope=\"row\">" + Code(path.id) +
              (path.expression.size() <= kShortExpressionChars ? "</th><td class=\"short\">"
                                                               : "</th><td>") +
              HtmlText(path.expression) + "</td><td>" + HtmlText(NeedsOf(path)) + "</td></tr>";
    }
    return html + "</tbody></table>\n";
  }

  std::string Figures(std::size_t first, std::size_t end) const {
    std::string html;
    for (std::size_t index = first; index < end; ++index) {
      html += fmt::format("<figure>{}<figcaption>{} of {}</figcaption></figure>\n",
                          pictures_[index], index + 1, layout_.num_codes);
    }
    return html;
  }

  std::string CodePage(std::size_t page, std::size_t first, std::size_t end) const {
    return "<div class=\"page\">\n" + Header(page, "p") +
           "<section class=\"codes\" aria-label=\"the envelope\">" + Figures(first, end) +
           "</section>\n</div>\n";
  }

  const RecoverySheet& sheet_;
  const Layout& layout_;
  const std::vector<std::string> pictures_;
};

}  // namespace

Result<SheetDocument> RecoverySheetHtml(const RecoverySheet& sheet) {
  ASSIGN_OR_RETURN(const QrEncoder encoder, QrEncoder::Load());
  const Layout layout = LayOut(sheet);
  std::vector<std::string> pictures;
  int version = 1;
  for (const std::string& line : envelope::CutSheetLines(sheet.packed, layout.num_codes)) {
    ASSIGN_OR_RETURN(const QrCode code, encoder.Encode(line, version));
    version = static_cast<int>((code.size - 17) / 4);  // the first line is as long as any
    pictures.push_back(
        QrSvg(code, fmt::format("QR code {} of {}", pictures.size() + 1, layout.num_codes)));
  }
  return SheetDocument{Page(sheet, layout, std::move(pictures)).Render(), layout.num_codes,
                       layout.num_pages};
}

}  // namespace keyescrow::agent::report
