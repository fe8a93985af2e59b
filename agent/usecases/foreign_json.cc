#include "agent/usecases/foreign_json.h"

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace keyescrow::agent {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxDepth = 32;

// Look goes through the text once before it is kept. A parser's callback would do as well, but with
// it nlohmann-json 3.11 takes the square of the number of members.
class Look final : public nlohmann::json_sax<Json> {
 public:
  std::string fault;

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(std::int64_t /*value*/) override { return true; }
  bool number_unsigned(std::uint64_t /*value*/) override { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(Json::binary_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*size*/) override { return Open(); }
  bool start_array(std::size_t /*size*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(std::string& name) override {
    // Of a member that stands twice, tools read one or the other: who says which is meant?
    if (open_.back().insert(name).second) return true;
    fault = "its JSON has a member twice";
    return false;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

 private:
  bool Open() {
    open_.emplace_back();
    if (open_.size() > kMaxDepth) fault = "its JSON nests too deep";
    return fault.empty();
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> open_;
};

}  // namespace

Error ForeignError(std::string what) {
  return Error(ErrorCode::kSourceUnreadable, Action::kFixInput, std::move(what),
               "name a file that 'clevis encrypt' made, or a LUKS2 volume with tokens of clevis or "
               "systemd");
}

Result<Json> ParseForeignObject(std::string_view text) {
  Look look;
  if (!Json::sax_parse(text, &look) && !look.fault.empty()) return ForeignError(look.fault);
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return ForeignError("it holds no JSON object");
  return json;
}

const Json* Member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

const std::string* Text(const Json& object, const char* name) {
  const Json* member = Member(object, name);
  return member == nullptr ? nullptr : member->get_ptr<const std::string*>();
}

}  // namespace keyescrow::agent
