// Reading events. The line must be byte for byte what SerializeEvent writes for what was read: that
// alone refuses unknown, doubled and misplaced members, spaces, other escapes and other numbers.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "agent/audit/event.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::audit {
namespace {

using Json = nlohmann::json;

Error Damaged(std::string_view member) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
               "the entry is not an event of this format: " + std::string(member),
               "compare the entry with a copy of the log");
}

// Fields takes members out of one object; what is missing or of another kind clears `ok`.
class Fields {
 public:
  Fields(const Json& object, bool& ok) : object_(object), ok_(ok) {
    if (!object.is_object()) ok_ = false;
  }
  const Json* Find(const char* name) const {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  std::string Text(const char* name) {  // "" where it is not there
    const Json* value = Find(name);
    if (value == nullptr) return "";
    if (!value->is_string()) {
      ok_ = false;
      return "";
    }
    return value->get_ref<const std::string&>();
  }
  std::uint64_t Number(const char* name, std::uint64_t max) {  // 0 where it is not there
    const Json* value = Find(name);
    if (value == nullptr) return 0;
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() > max) {
      ok_ = false;
      return 0;
    }
    return value->get<std::uint64_t>();
  }
  std::uint32_t Number32(const char* name) {
    return static_cast<std::uint32_t>(Number(name, std::numeric_limits<std::uint32_t>::max()));
  }
  bool Bool(const char* name) {
    const Json* value = Find(name);
    if (value == nullptr) return false;
    if (!value->is_boolean()) {
      ok_ = false;
      return false;
    }
    return value->get<bool>();
  }
  template <std::size_t kSize>
  std::array<std::uint8_t, kSize> FixedBytes(const char* name) {
    std::array<std::uint8_t, kSize> out{};
    const auto bytes = DecodeBase64Url(Text(name));
    if (!bytes || bytes->size() != kSize) {
      ok_ = false;
      return out;
    }
    std::copy(bytes->begin(), bytes->end(), out.begin());
    return out;
  }
  Bytes SomeBytes(const char* name) {  // none where it is not there
    const auto bytes = DecodeBase64Url(Text(name));
    if (!bytes) ok_ = false;
    return bytes.value_or(Bytes());
  }
  const Json& Array(const char* name) {  // empty where it is not there
    static const Json kNone = Json::array();
    const Json* value = Find(name);
    if (value == nullptr) return kNone;
    if (!value->is_array()) {
      ok_ = false;
      return kNone;
    }
    return *value;
  }

 private:
  const Json& object_;
  bool& ok_;
};

Actor ReadActor(const Json& object, bool& ok) {
  Fields in(object, ok);
  Actor actor;
  actor.uid = in.Number32("uid");
  if (in.Find("login_uid") != nullptr) actor.login_uid = in.Number32("login_uid");
  actor.name = in.Text("name");
  actor.pid = static_cast<std::int32_t>(
      in.Number("pid", static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())));
  actor.exe = in.Text("exe");
  return actor;
}

EventPath ReadPath(const Json& object, bool& ok) {
  Fields in(object, ok);
  EventPath path;
  path.id = in.Text("id");
  for (const Json& item : in.Array("factors")) {
    Fields from(item, ok);
    EventFactor factor;
    factor.kind = from.Text("kind");
    factor.id = from.Text("id");
    if (from.Find("key_sha256") != nullptr) factor.key_sha256 = from.FixedBytes<32>("key_sha256");
    factor.kdf = from.Text("kdf");
    path.factors.push_back(std::move(factor));
  }
  return path;
}

EventDrill ReadDrill(const Json& object, bool& ok) {
  Fields in(object, ok);
  EventDrill drill;
  drill.size = in.Number("size", std::numeric_limits<std::uint64_t>::max());
  drill.root = in.FixedBytes<32>("root");
  const auto time = ParseUtc(in.Text("time"));
  if (!time) ok = false;
  drill.time = time.value_or(0);
  if (in.Find("challenge") != nullptr) drill.challenge = in.FixedBytes<32>("challenge");
  drill.signature = in.FixedBytes<64>("signature");
  return drill;
}

EventAnchor ReadAnchor(const Json& object, bool& ok) {
  Fields in(object, ok);
  EventAnchor anchor;
  anchor.counter = in.Number("counter", std::numeric_limits<std::uint64_t>::max());
  anchor.index = in.Number32("index");
  anchor.key = in.SomeBytes("key");
  anchor.attest = in.SomeBytes("attest");
  if (in.Find("signature") != nullptr) anchor.signature = in.FixedBytes<64>("signature");
  return anchor;
}

void ReadObjects(Fields& in, Event& event, bool& ok) {
  if (const Json* actor = in.Find("actor")) event.actor = ReadActor(*actor, ok);
  if (const Json* object = in.Find("key")) {
    Fields from(*object, ok);
    event.key = EventKey{from.Text("name"), from.Number32("version")};
  }
  if (const Json* object = in.Find("envelope")) {
    Fields from(*object, ok);
    event.envelope =
        EventEnvelope{from.Text("id"), from.Number32("revision"), from.FixedBytes<32>("sha256")};
  }
  if (const Json* object = in.Find("policy")) {
    Fields from(*object, ok);
    event.policy = EventPolicy{from.Text("id"),
                               from.Number("serial", std::numeric_limits<std::uint64_t>::max()),
                               from.FixedBytes<32>("sha256")};
  }
  if (const Json* object = in.Find("anchor")) event.anchor = ReadAnchor(*object, ok);
  for (const Json& approver : in.Array("approvers")) {
    if (!approver.is_string()) ok = false;
    event.approvers.push_back(approver.is_string() ? approver.get<std::string>() : "");
  }
  for (const Json& path : in.Array("paths")) event.paths.push_back(ReadPath(path, ok));
  if (const Json* object = in.Find("drill")) event.drill = ReadDrill(*object, ok);
}

}  // namespace

Result<Event> ParseEvent(std::string_view line) {
  if (line.size() > kMaxEventBytes) return Damaged("it is longer than 2048 bytes");
  const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Damaged("it is not a JSON object");
  bool ok = true;
  Fields in(object, ok);
  const std::uint64_t version = in.Number("v", std::numeric_limits<std::uint64_t>::max());
  if (ok && version > 1) {
    return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                 "the entry was written by a newer version",
                 "install a newer keyescrow to read it; this is version " KEYESCROW_VERSION);
  }
  Event event;
  event.id = in.FixedBytes<16>("id");
  event.source = in.Text("source");
  event.source_seq = in.Number("source_seq", std::numeric_limits<std::uint64_t>::max());
  const auto time = ParseUtc(in.Text("time"));
  const auto type = EventTypeFromName(in.Text("type"));
  const auto outcome = OutcomeFromName(in.Text("outcome"));
  if (!ok || !time || !type || !outcome) return Damaged("id, source, time, type or outcome");
  event.time = *time;
  event.type = *type;
  event.outcome = *outcome;
  event.boot_id = in.Text("boot_id");
  event.clock_synced = in.Bool("clock_synced");
  event.error = in.Text("error");
  event.host = in.Text("host");
  event.reason = in.Text("reason");
  event.ticket = in.Text("ticket");
  event.truncated = in.Bool("truncated");
  if (in.Find("prev_checkpoint") != nullptr) {
    event.prev_checkpoint = in.FixedBytes<32>("prev_checkpoint");
  }
  ReadObjects(in, event, ok);
  if (!ok) return Damaged("a member is of another kind");
  const auto again = SerializeEvent(event);
  if (!again || *again != line) return Damaged("it is not written canonically");
  return event;
}

}  // namespace keyescrow::agent::audit
