#include "agent/audit/event.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "agent/audit/event_limits.h"
#include "agent/audit/plain_text.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/utf8.h"

namespace keyescrow::agent::audit {
namespace {

constexpr std::array kTypeNames = {
#define KEYESCROW_EVENT(enumerator, name) std::string_view(name),
#include "agent/audit/event_types.def"
#undef KEYESCROW_EVENT
};
constexpr std::array<std::string_view, 3> kOutcomeNames = {"pending", "success", "failure"};

// What is left out, step by step, until the line fits.
enum class Detail : std::uint8_t {
  kAll,
  kNoFactorDetails,
  kNoFactors,
  kNoPaths,
  kShortReason,
  kBare
};

// Characters that could do something to a terminal or to a reader's eye are escaped.
bool MustEscape(char32_t c) {
  return c < 0x20 || c == '"' || c == '\\' || (c >= 0x7F && c <= 0x9F) || c == 0x061C ||
         (c >= 0x200E && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

// Writer appends members; what stands before a value, from the comma to the opening quote, is given
// as it is written.
class Writer {
 public:
  Writer() { out_.reserve(kUsualBytes); }

  std::string Take() { return std::move(out_); }

  void Raw(std::string_view text) { out_ += text; }
  void Number(std::string_view before, std::uint64_t value) {
    out_ += before;
    char digits[20];
    out_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  void Text(std::string_view before, std::string_view text, std::size_t max_bytes) {
    out_ += before;
    if (text.size() <= max_bytes && IsPlainText(text)) {
      out_ += text;
    } else {
      Escaped(CutUtf8(text, max_bytes));
    }
    out_ += '"';
  }
  void TextUnlessEmpty(std::string_view before, std::string_view text, std::size_t max_bytes) {
    if (!text.empty()) Text(before, text, max_bytes);
  }
  void Base64Url(std::string_view before, ByteView bytes) {
    out_ += before;
    out_ += EncodeBase64Url(bytes);  // never cut, and there is nothing to escape
    out_ += '"';
  }

 private:
  static constexpr std::size_t kUsualBytes = 1024;

  void Escaped(std::string_view rest) {
    while (!rest.empty()) {
      const CodePoint c = FirstCodePoint(rest);
      if (c.value == '"' || c.value == '\\') {
        out_ += '\\';
        out_ += static_cast<char>(c.value);
      } else if (MustEscape(c.value)) {
        fmt::format_to(std::back_inserter(out_), "\\u{:04x}", static_cast<unsigned>(c.value));
      } else {
        out_ += rest.substr(0, c.size_bytes);
      }
      rest.remove_prefix(c.size_bytes);
    }
  }

  std::string out_;
};

void WriteActor(Writer& out, const Actor& actor) {
  out.Number(R"(,"actor":{"uid":)", actor.uid);
  if (actor.login_uid) out.Number(R"(,"login_uid":)", *actor.login_uid);
  out.TextUnlessEmpty(R"(,"name":")", actor.name, kMaxShortBytes);
  out.Number(R"(,"pid":)", static_cast<std::uint64_t>(std::max(actor.pid, 0)));
  out.TextUnlessEmpty(R"(,"exe":")", actor.exe, kMaxExeBytes);
  out.Raw("}");
}

void WriteFactors(Writer& out, const std::vector<EventFactor>& factors, Detail detail) {
  std::string_view before = R"(,"factors":[{"kind":")";
  for (const EventFactor& factor : factors) {
    out.Text(before, factor.kind, kMaxShortBytes);
    out.TextUnlessEmpty(R"(,"id":")", factor.id, kMaxShortBytes);
    if (detail < Detail::kNoFactorDetails) {
      if (factor.key_sha256) out.Base64Url(R"(,"key_sha256":")", *factor.key_sha256);
      out.TextUnlessEmpty(R"(,"kdf":")", factor.kdf, kMaxShortBytes);
    }
    out.Raw("}");
    before = R"(,{"kind":")";
  }
  out.Raw("]");
}

void WritePaths(Writer& out, const std::vector<EventPath>& paths, Detail detail) {
  std::string_view before = R"(,"paths":[{"id":")";
  for (std::size_t i = 0; i < std::min(paths.size(), kMaxPaths); ++i) {
    out.Text(before, paths[i].id, kMaxShortBytes);
    if (detail < Detail::kNoFactors && !paths[i].factors.empty()) {
      WriteFactors(out, paths[i].factors, detail);
    }
    out.Raw("}");
    before = R"(,{"id":")";
  }
  out.Raw("]");
}

void WriteDrill(Writer& out, const EventDrill& drill) {
  out.Number(R"(,"drill":{"size":)", drill.size);
  out.Base64Url(R"(,"root":")", drill.root);
  out.Text(R"(,"time":")", FormatUtc(drill.time), kMaxShortBytes);
  if (drill.challenge) out.Base64Url(R"(,"challenge":")", *drill.challenge);
  out.Base64Url(R"(,"signature":")", drill.signature);
  out.Raw("}");
}

void WriteAnchor(Writer& out, const EventAnchor& anchor) {
  out.Number(R"(,"anchor":{"counter":)", anchor.counter);
  out.Number(R"(,"index":)", anchor.index);
  out.Base64Url(R"(,"key":")", anchor.key);
  if (!anchor.attest.empty()) out.Base64Url(R"(,"attest":")", anchor.attest);
  if (anchor.signature) out.Base64Url(R"(,"signature":")", *anchor.signature);
  out.Raw("}");
}

void WriteApprovers(Writer& out, const std::vector<std::string>& approvers) {
  std::string_view before = R"(,"approvers":[")";
  for (std::size_t i = 0; i < std::min(approvers.size(), kMaxApprovers); ++i) {
    out.Text(before, approvers[i], kMaxShortBytes);
    before = R"(,")";
  }
  out.Raw("]");
}

void WriteKeyEnvelopeAndPolicy(Writer& out, const Event& event) {
  if (event.key) {
    out.Text(R"(,"key":{"name":")", event.key->name, kMaxNameBytes);
    if (event.key->version != 0) out.Number(R"(,"version":)", event.key->version);
    out.Raw("}");
  }
  if (event.envelope) {
    out.Text(R"(,"envelope":{"id":")", event.envelope->id, kMaxShortBytes);
    out.Number(R"(,"revision":)", event.envelope->revision);
    out.Base64Url(R"(,"sha256":")", event.envelope->sha256);
    out.Raw("}");
  }
  if (event.policy) {
    out.Text(R"(,"policy":{"id":")", event.policy->id, kMaxShortBytes);
    out.Number(R"(,"serial":)", event.policy->serial);
    out.Base64Url(R"(,"sha256":")", event.policy->sha256);
    out.Raw("}");
  }
}

std::string Write(const Event& event, Detail detail) {
  Writer out;
  out.Base64Url(R"({"v":1,"id":")", event.id);
  out.Text(R"(,"source":")", event.source, kMaxSourceBytes);
  out.Number(R"(,"source_seq":)", event.source_seq);
  out.Text(R"(,"time":")", FormatUtc(event.time), kMaxShortBytes);
  out.Text(R"(,"boot_id":")", event.boot_id, kMaxShortBytes);
  out.Raw(event.clock_synced ? R"(,"clock_synced":true)" : R"(,"clock_synced":false)");
  out.Text(R"(,"type":")", EventTypeName(event.type), kMaxShortBytes);
  out.Text(R"(,"outcome":")", OutcomeName(event.outcome), kMaxShortBytes);
  out.TextUnlessEmpty(R"(,"error":")", event.error, kMaxShortBytes);
  if (event.actor) WriteActor(out, *event.actor);
  if (!event.approvers.empty() && detail < Detail::kBare) WriteApprovers(out, event.approvers);
  out.Text(R"(,"host":")", event.host, kMaxShortBytes);
  WriteKeyEnvelopeAndPolicy(out, event);
  // Without its path's id a drill's statement could not be checked.
  if (!event.paths.empty() && (detail < Detail::kNoPaths || event.drill)) {
    WritePaths(out, event.paths, detail);
  }
  if (event.drill) WriteDrill(out, *event.drill);
  if (event.anchor) WriteAnchor(out, *event.anchor);
  if (detail < Detail::kBare) {
    out.TextUnlessEmpty(R"(,"reason":")", event.reason,
                        detail < Detail::kShortReason ? kMaxReasonBytes : kMaxShortReasonBytes);
    out.TextUnlessEmpty(R"(,"ticket":")", event.ticket, kMaxTicketBytes);
  }
  if (event.prev_checkpoint) out.Base64Url(R"(,"prev_checkpoint":")", *event.prev_checkpoint);
  if (event.truncated || detail != Detail::kAll) out.Raw(R"(,"truncated":true)");
  out.Raw("}");
  return out.Take();
}

}  // namespace

std::string_view EventTypeName(EventType type) {
  return kTypeNames[static_cast<std::size_t>(type)];
}

std::optional<EventType> EventTypeFromName(std::string_view name) {
  const auto found = std::find(kTypeNames.begin(), kTypeNames.end(), name);
  if (found == kTypeNames.end()) return std::nullopt;
  return static_cast<EventType>(found - kTypeNames.begin());
}

std::string_view OutcomeName(Outcome outcome) {
  return kOutcomeNames[static_cast<std::size_t>(outcome)];
}

std::optional<Outcome> OutcomeFromName(std::string_view name) {
  const auto found = std::find(kOutcomeNames.begin(), kOutcomeNames.end(), name);
  if (found == kOutcomeNames.end()) return std::nullopt;
  return static_cast<Outcome>(found - kOutcomeNames.begin());
}

Result<std::string> SerializeEvent(const Event& event) {
  if (event.drill && (event.paths.size() != 1 || !event.envelope)) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "a drill's event is not of one path of an envelope", "report this");
  }
  for (const Detail detail : {Detail::kAll, Detail::kNoFactorDetails, Detail::kNoFactors,
                              Detail::kNoPaths, Detail::kShortReason, Detail::kBare}) {
    std::string line = Write(event, detail);
    if (line.size() <= kMaxEventBytes) return line;
  }
  return Error(ErrorCode::kInternal, Action::kReportBug,
               "an event is longer than 2048 bytes without its details", "report this");
}

}  // namespace keyescrow::agent::audit
