#include "agent/audit/event_facts.h"

#include <array>
#include <cstring>
#include <limits>

#include "agent/audit/event_limits.h"
#include "agent/audit/plain_text.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::audit {
namespace {

constexpr std::uint8_t kNoDigit = 0xFF;

// kSextet: the value of a base64url character.
constexpr std::array<std::uint8_t, 256> kSextet = [] {
  std::array<std::uint8_t, 256> table{};
  for (auto& value : table) value = kNoDigit;
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  for (std::size_t i = 0; i < kAlphabet.size(); ++i) {
    table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::uint8_t>(i);
  }
  return table;
}();

// Scanner walks over one line. Once something is not as a plain event has it, `ok` stays false.
class Scanner {
 public:
  explicit Scanner(std::string_view line) : at_(line.data()), end_(line.data() + line.size()) {}

  bool ok() const { return ok_; }
  bool AtEnd() const { return at_ == end_; }

  bool Take(std::string_view text) {
    if (static_cast<std::size_t>(end_ - at_) < text.size() ||
        std::memcmp(at_, text.data(), text.size()) != 0) {
      return false;
    }
    at_ += text.size();
    return true;
  }
  void Expect(std::string_view text) {
    if (!Take(text)) ok_ = false;
  }

  // Text reads up to the closing quote; the opening one was taken.
  std::string_view Text(std::size_t max_bytes) {
    const char* const start = at_;
    while (end_ - at_ >= 8) {
      const std::size_t num_plain = PlainPrefix(at_);
      at_ += num_plain;
      if (num_plain < 8) break;
    }
    while (at_ != end_ && IsPlainChar(*at_)) ++at_;
    const std::string_view text(start, static_cast<std::size_t>(at_ - start));
    if (text.size() > max_bytes) ok_ = false;
    Expect("\"");
    return text;
  }
  // TextIf reads a member that is left out where it is empty.
  std::string_view TextIf(std::string_view name, std::size_t max_bytes) {
    if (!Take(name)) return {};
    const std::string_view text = Text(max_bytes);
    if (text.empty()) ok_ = false;
    return text;
  }
  std::uint64_t Number(std::uint64_t max) {
    const char* const start = at_;
    std::uint64_t value = 0;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') {
      const auto digit = static_cast<std::uint64_t>(*at_ - '0');
      if (value > (max - digit) / 10) {
        ok_ = false;
        return 0;
      }
      value = value * 10 + digit;
      ++at_;
    }
    if (at_ == start || (*start == '0' && at_ - start > 1)) ok_ = false;
    return value;
  }
  std::uint32_t Number32() {
    return static_cast<std::uint32_t>(Number(std::numeric_limits<std::uint32_t>::max()));
  }

  // FixedBytes reads canonical unpadded base64url of kSize bytes and the closing quote.
  template <std::size_t kSize>
  std::array<std::uint8_t, kSize> FixedBytes() {
    constexpr std::size_t kChars = (kSize * 8 + 5) / 6;
    std::array<std::uint8_t, kSize> out{};
    if (static_cast<std::size_t>(end_ - at_) < kChars) {
      ok_ = false;
      return out;
    }
    std::uint32_t seen = 0;  // every sextet is below 0x40, kNoDigit is not
    const auto next = [&] {
      const std::uint32_t sextet = kSextet[static_cast<unsigned char>(*at_++)];
      seen |= sextet;
      return sextet;
    };
    std::size_t filled = 0;
    for (; filled + 3 <= kSize; filled += 3) {  // four characters at a time
      std::uint32_t bits = next() << 18;
      bits |= next() << 12;
      bits |= next() << 6;
      bits |= next();
      out[filled] = static_cast<std::uint8_t>(bits >> 16);
      out[filled + 1] = static_cast<std::uint8_t>(bits >> 8);
      out[filled + 2] = static_cast<std::uint8_t>(bits);
    }
    if constexpr (kSize % 3 != 0) {
      std::uint32_t bits = next() << 18;
      bits |= next() << 12;
      out[filled] = static_cast<std::uint8_t>(bits >> 16);
      if constexpr (kSize % 3 == 2) {
        bits |= next() << 6;
        out[filled + 1] = static_cast<std::uint8_t>(bits >> 8);
      }
      // What the last character says beyond the last byte is zero.
      if ((bits & (kSize % 3 == 2 ? 0xFFU : 0xFFFFU)) != 0) ok_ = false;
    }
    if (seen >= 0x40) ok_ = false;
    Expect("\"");
    return out;
  }

 private:
  const char* at_;
  const char* end_;
  bool ok_ = true;
};

void ScanActor(Scanner& in, EventFacts& facts) {
  if (!in.Take(R"(,"actor":{"uid":)")) return;
  facts.uid = in.Number32();
  if (in.Take(R"(,"login_uid":)")) in.Number32();
  in.TextIf(R"(,"name":")", kMaxShortBytes);
  in.Expect(R"(,"pid":)");
  facts.pid = static_cast<std::int32_t>(
      in.Number(static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())));
  in.TextIf(R"(,"exe":")", kMaxExeBytes);
  in.Expect("}");
}

void ScanFactors(Scanner& in, EventFacts& facts, bool is_first_path) {
  if (!in.Take(R"(,"factors":[)")) return;
  bool is_first = is_first_path;
  do {
    in.Expect(R"({"kind":")");
    const std::string_view kind = in.Text(kMaxShortBytes);
    const std::string_view id = in.TextIf(R"(,"id":")", kMaxShortBytes);
    std::optional<Bytes32> key;
    if (in.Take(R"(,"key_sha256":")")) key = in.FixedBytes<32>();
    in.TextIf(R"(,"kdf":")", kMaxShortBytes);
    in.Expect("}");
    if (is_first) {
      facts.factor_kind = kind;
      facts.factor_id = id;
      facts.factor_key_sha256 = key;
    }
    is_first = false;
  } while (in.ok() && in.Take(","));
  in.Expect("]");
}

void ScanPaths(Scanner& in, EventFacts& facts) {
  if (!in.Take(R"(,"paths":[)")) return;
  std::size_t num_paths = 0;
  do {
    in.Expect(R"({"id":")");
    const std::string_view id = in.Text(kMaxShortBytes);
    if (num_paths == 0) facts.path_id = id;
    ScanFactors(in, facts, num_paths == 0);
    in.Expect("}");
    ++num_paths;
  } while (in.ok() && num_paths < kMaxPaths && in.Take(","));
  in.Expect("]");
}

void ScanKeyEnvelopeAndPolicy(Scanner& in, EventFacts& facts) {
  if (in.Take(R"(,"key":{"name":")")) {
    facts.has_key = true;
    facts.key_name = in.Text(kMaxNameBytes);
    if (in.Take(R"(,"version":)")) {
      facts.key_version = in.Number32();
      if (facts.key_version == 0) in.Expect("a version of 0 is left out");
    }
    in.Expect("}");
  }
  if (in.Take(R"(,"envelope":{"id":")")) {
    facts.has_envelope = true;
    facts.envelope_id = in.Text(kMaxShortBytes);
    in.Expect(R"(,"revision":)");
    facts.revision = in.Number32();
    in.Expect(R"(,"sha256":")");
    facts.envelope_sha256 = in.FixedBytes<32>();
    in.Expect("}");
  }
  if (in.Take(R"(,"policy":{"id":")")) {
    facts.has_policy = true;
    in.Text(kMaxShortBytes);
    in.Expect(R"(,"serial":)");
    facts.policy_serial = in.Number(std::numeric_limits<std::uint64_t>::max());
    in.Expect(R"(,"sha256":")");
    facts.policy_sha256 = in.FixedBytes<32>();
    in.Expect("}");
  }
}

bool ScanHead(Scanner& in, EventFacts& facts) {
  in.Expect(R"({"v":1,"id":")");
  facts.id = in.FixedBytes<16>();
  in.Expect(R"(,"source":")");
  facts.source = in.Text(kMaxSourceBytes);
  in.Expect(R"(,"source_seq":)");
  facts.source_seq = in.Number(std::numeric_limits<std::uint64_t>::max());
  in.Expect(R"(,"time":")");
  const auto time = ParseUtc(in.Text(kMaxShortBytes));
  in.Expect(R"(,"boot_id":")");
  in.Text(kMaxShortBytes);
  in.Expect(R"(,"clock_synced":)");
  if (!in.Take("true")) in.Expect("false");
  in.Expect(R"(,"type":")");
  const auto type = EventTypeFromName(in.Text(kMaxShortBytes));
  in.Expect(R"(,"outcome":")");
  const auto outcome = OutcomeFromName(in.Text(kMaxShortBytes));
  if (!in.ok() || !time || !type || !outcome) return false;
  facts.time = *time;
  facts.type = *type;
  facts.outcome = *outcome;
  return true;
}

EventFacts FactsOf(const Event& event) {
  EventFacts facts;
  facts.id = event.id;
  facts.source = event.source;
  facts.source_seq = event.source_seq;
  facts.time = event.time;
  facts.type = event.type;
  facts.outcome = event.outcome;
  if (event.actor) {
    facts.uid = event.actor->uid;
    facts.pid = event.actor->pid;
  }
  if (event.key) {
    facts.has_key = true;
    facts.key_name = event.key->name;
    facts.key_version = event.key->version;
  }
  if (event.envelope) {
    facts.has_envelope = true;
    facts.envelope_id = event.envelope->id;
    facts.revision = event.envelope->revision;
    facts.envelope_sha256 = event.envelope->sha256;
  }
  if (event.policy) {
    facts.has_policy = true;
    facts.policy_serial = event.policy->serial;
    facts.policy_sha256 = event.policy->sha256;
  }
  if (!event.paths.empty()) {
    const EventPath& path = event.paths.front();
    facts.path_id = path.id;
    if (!path.factors.empty()) {
      facts.factor_kind = path.factors.front().kind;
      facts.factor_id = path.factors.front().id;
      facts.factor_key_sha256 = path.factors.front().key_sha256;
    }
  }
  facts.error = event.error;
  facts.reason = event.reason;
  facts.prev_checkpoint = event.prev_checkpoint;
  facts.truncated = event.truncated;
  facts.event = &event;
  return facts;
}

}  // namespace

std::optional<EventFacts> ScanPlainEvent(std::string_view line) {
  if (line.size() > kMaxEventBytes) return std::nullopt;
  Scanner in(line);
  EventFacts facts;
  if (!ScanHead(in, facts)) return std::nullopt;
  facts.error = in.TextIf(R"(,"error":")", kMaxShortBytes);
  ScanActor(in, facts);
  in.Expect(R"(,"host":")");  // approvers are rare: they take the slow way
  in.Text(kMaxShortBytes);
  ScanKeyEnvelopeAndPolicy(in, facts);
  ScanPaths(in, facts);
  facts.reason = in.TextIf(R"(,"reason":")", kMaxReasonBytes);
  in.TextIf(R"(,"ticket":")", kMaxTicketBytes);
  if (in.Take(R"(,"prev_checkpoint":")")) facts.prev_checkpoint = in.FixedBytes<32>();
  facts.truncated = in.Take(R"(,"truncated":true)");
  in.Expect("}");
  if (!in.ok() || !in.AtEnd()) return std::nullopt;
  return facts;
}

Result<EventFacts> EventReader::Read(std::string_view line) {
  if (auto facts = ScanPlainEvent(line)) return *facts;
  ASSIGN_OR_RETURN(slow_, ParseEvent(line));
  return FactsOf(slow_);
}

}  // namespace keyescrow::agent::audit
