#include "agent/audit/event.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "agent/audit/event_limits.h"
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

class Writer {
 public:
  Writer() { out_.reserve(kUsualBytes); }

  std::string Take() { return std::move(out_); }

  void Open(char bracket) {
    Separate();
    out_ += bracket;
    first_ = true;
  }
  void Close(char bracket) {
    out_ += bracket;
    first_ = false;
  }
  void Name(std::string_view name) {  // our own names: nothing to escape
    Separate();
    out_ += '"';
    out_ += name;
    out_ += "\":";
    first_ = true;
  }
  void Number(std::uint64_t value) {
    Separate();
    fmt::format_to(std::back_inserter(out_), "{}", value);
  }
  void Bool(bool value) {
    Separate();
    out_ += value ? "true" : "false";
  }
  void Text(std::string_view text, std::size_t max_bytes) {
    Separate();
    out_ += '"';
    if (text.size() <= max_bytes && IsPlain(text)) {
      out_ += text;
      out_ += '"';
      return;
    }
    const std::string cut = CutUtf8(text, max_bytes);
    for (std::string_view rest = cut; !rest.empty();) {
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
    out_ += '"';
  }
  void NamedText(std::string_view name, std::string_view text, std::size_t max_bytes) {
    Name(name);
    Text(text, max_bytes);
  }
  void NamedTextUnlessEmpty(std::string_view name, std::string_view text, std::size_t max_bytes) {
    if (!text.empty()) NamedText(name, text, max_bytes);
  }
  void NamedNumber(std::string_view name, std::uint64_t value) {
    Name(name);
    Number(value);
  }
  void NamedBytes(std::string_view name, ByteView bytes) {
    Name(name);
    out_ += '"';
    out_ += EncodeBase64Url(bytes);  // never cut, and there is nothing to escape
    out_ += '"';
    first_ = false;
  }

 private:
  static constexpr std::size_t kUsualBytes = 1024;

  // IsPlain: printable ASCII that stands for itself in a string; nearly every text is of it alone.
  static bool IsPlain(std::string_view text) {
    unsigned other = 0;  // no jump for each character
    for (const char c : text) {
      const unsigned value = static_cast<unsigned char>(c);
      other |= static_cast<unsigned>(value - 0x20U > 0x7EU - 0x20U) |
               static_cast<unsigned>(value == '"') | static_cast<unsigned>(value == '\\');
    }
    return other == 0;
  }

  void Separate() {
    if (!first_) out_ += ',';
    first_ = false;
  }
  std::string out_;
  bool first_ = true;
};

void WriteActor(Writer& out, const Actor& actor) {
  out.Name("actor");
  out.Open('{');
  out.NamedNumber("uid", actor.uid);
  if (actor.login_uid) out.NamedNumber("login_uid", *actor.login_uid);
  out.NamedTextUnlessEmpty("name", actor.name, kMaxShortBytes);
  out.NamedNumber("pid", static_cast<std::uint64_t>(std::max(actor.pid, 0)));
  out.NamedTextUnlessEmpty("exe", actor.exe, kMaxExeBytes);
  out.Close('}');
}

void WritePaths(Writer& out, const std::vector<EventPath>& paths, Detail detail) {
  out.Name("paths");
  out.Open('[');
  for (std::size_t i = 0; i < std::min(paths.size(), kMaxPaths); ++i) {
    out.Open('{');
    out.NamedText("id", paths[i].id, kMaxShortBytes);
    if (detail < Detail::kNoFactors && !paths[i].factors.empty()) {
      out.Name("factors");
      out.Open('[');
      for (const EventFactor& factor : paths[i].factors) {
        out.Open('{');
        out.NamedText("kind", factor.kind, kMaxShortBytes);
        out.NamedTextUnlessEmpty("id", factor.id, kMaxShortBytes);
        if (detail < Detail::kNoFactorDetails) {
          if (factor.key_sha256) out.NamedBytes("key_sha256", *factor.key_sha256);
          out.NamedTextUnlessEmpty("kdf", factor.kdf, kMaxShortBytes);
        }
        out.Close('}');
      }
      out.Close(']');
    }
    out.Close('}');
  }
  out.Close(']');
}

void WriteDrill(Writer& out, const EventDrill& drill) {
  out.Name("drill");
  out.Open('{');
  out.NamedNumber("size", drill.size);
  out.NamedBytes("root", drill.root);
  out.NamedText("time", FormatUtc(drill.time), kMaxShortBytes);
  if (drill.challenge) out.NamedBytes("challenge", *drill.challenge);
  out.NamedBytes("signature", drill.signature);
  out.Close('}');
}

void WriteAnchor(Writer& out, const EventAnchor& anchor) {
  out.Name("anchor");
  out.Open('{');
  out.NamedNumber("counter", anchor.counter);
  out.NamedNumber("index", anchor.index);
  out.NamedBytes("key", anchor.key);
  if (!anchor.attest.empty()) out.NamedBytes("attest", anchor.attest);
  if (anchor.signature) out.NamedBytes("signature", *anchor.signature);
  out.Close('}');
}

std::string Write(const Event& event, Detail detail) {
  Writer out;
  out.Open('{');
  out.NamedNumber("v", 1);
  out.NamedBytes("id", event.id);
  out.NamedText("source", event.source, kMaxSourceBytes);
  out.NamedNumber("source_seq", event.source_seq);
  out.NamedText("time", FormatUtc(event.time), kMaxShortBytes);
  out.NamedText("boot_id", event.boot_id, kMaxShortBytes);
  out.Name("clock_synced");
  out.Bool(event.clock_synced);
  out.NamedText("type", EventTypeName(event.type), kMaxShortBytes);
  out.NamedText("outcome", kOutcomeNames[static_cast<std::size_t>(event.outcome)], kMaxShortBytes);
  out.NamedTextUnlessEmpty("error", event.error, kMaxShortBytes);
  if (event.actor) WriteActor(out, *event.actor);
  if (!event.approvers.empty() && detail < Detail::kBare) {
    out.Name("approvers");
    out.Open('[');
    for (std::size_t i = 0; i < std::min(event.approvers.size(), kMaxApprovers); ++i) {
      out.Text(event.approvers[i], kMaxShortBytes);
    }
    out.Close(']');
  }
  out.NamedText("host", event.host, kMaxShortBytes);
  if (event.key) {
    out.Name("key");
    out.Open('{');
    out.NamedText("name", event.key->name, kMaxNameBytes);
    if (event.key->version != 0) out.NamedNumber("version", event.key->version);
    out.Close('}');
  }
  if (event.envelope) {
    out.Name("envelope");
    out.Open('{');
    out.NamedText("id", event.envelope->id, kMaxShortBytes);
    out.NamedNumber("revision", event.envelope->revision);
    out.NamedBytes("sha256", event.envelope->sha256);
    out.Close('}');
  }
  if (event.policy) {
    out.Name("policy");
    out.Open('{');
    out.NamedText("id", event.policy->id, kMaxShortBytes);
    out.NamedNumber("serial", event.policy->serial);
    out.NamedBytes("sha256", event.policy->sha256);
    out.Close('}');
  }
  // Without its path's id a drill's statement could not be checked.
  if (!event.paths.empty() && (detail < Detail::kNoPaths || event.drill)) {
    WritePaths(out, event.paths, detail);
  }
  if (event.drill) WriteDrill(out, *event.drill);
  if (event.anchor) WriteAnchor(out, *event.anchor);
  if (detail < Detail::kBare) {
    out.NamedTextUnlessEmpty("reason", event.reason,
                             detail < Detail::kShortReason ? kMaxReasonBytes : kMaxReasonBytes / 4);
    out.NamedTextUnlessEmpty("ticket", event.ticket, kMaxTicketBytes);
  }
  if (event.prev_checkpoint) out.NamedBytes("prev_checkpoint", *event.prev_checkpoint);
  if (event.truncated || detail != Detail::kAll) {
    out.Name("truncated");
    out.Bool(true);
  }
  out.Close('}');
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
