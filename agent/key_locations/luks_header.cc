#include "agent/key_locations/luks_header.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::json;

constexpr std::uint8_t kMagic[] = {'L', 'U', 'K', 'S', 0xBA, 0xBE};
constexpr std::uint8_t kSecondMagic[] = {'S', 'K', 'U', 'L', 0xBA, 0xBE};
constexpr std::size_t kBinaryBytes = 4096;
constexpr std::size_t kMaxHeaderBytes = 4u << 20;
// Where each field stands, and its size.
constexpr std::size_t kVersionAt = 6, kSizeAt = 8, kSequenceAt = 16, kLabelAt = 24,
                      kChecksumNameAt = 72, kUuidAt = 168, kOffsetAt = 256, kChecksumAt = 448;
constexpr std::size_t kLabelBytes = 48, kChecksumNameBytes = 32, kUuidBytes = 40,
                      kChecksumBytes = 64;
constexpr unsigned kMaxKeyslots = 32, kMaxTokens = 32;
constexpr int kMaxDepth = 32;
constexpr std::uint64_t kMaxAreaBytes = 64u << 20;
constexpr std::uint64_t kAlignment = 4096, kStripes = 4000;

Error Invalid(std::string message, std::string hint =
                                       "name the block device or image of a LUKS2 volume, or its "
                                       "detached header; 'cryptsetup luksDump' shows one") {
  return Error(ErrorCode::kInvalidLocation, Action::kFixInput, std::move(message), std::move(hint));
}

Error Damaged(const std::string& what) {
  return Invalid("the LUKS2 header is damaged: " + what,
                 "look at it with 'cryptsetup luksDump' and 'cryptsetup repair', or put a header "
                 "backup back");
}

std::uint64_t Number(ByteView bytes, std::size_t at, std::size_t num_bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < num_bytes; ++i) value = value << 8 | bytes[at + i];
  return value;
}

std::string Text(ByteView bytes, std::size_t at, std::size_t max_bytes) {
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const auto end = std::find(begin, begin + static_cast<std::ptrdiff_t>(max_bytes), 0);
  return std::string(begin, end);
}

bool StartsWith(ByteView bytes, ByteView magic) {
  return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
}

bool NestsTooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

// The readers below give nothing where a member is missing or of another type.
const Json* Member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::string TextOf(const Json& object, const char* name) {
  const Json* member = Member(object, name);
  return member != nullptr && member->is_string() ? member->get<std::string>() : "";
}

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

// Sizes and offsets are decimal numbers in strings (specification, 3.1).
std::optional<std::uint64_t> SizeOf(const Json& object, const char* name) {
  return ParseNumber(TextOf(object, name));
}

// Numbers reads a list of ids in strings.
std::set<unsigned> Numbers(const Json& object, const char* name) {
  std::set<unsigned> numbers;
  const Json* list = Member(object, name);
  if (list == nullptr || !list->is_array()) return numbers;
  for (const Json& item : *list) {
    if (!item.is_string()) continue;
    const auto number = ParseNumber(item.get_ref<const std::string&>());
    if (number && *number < 1024) numbers.insert(static_cast<unsigned>(*number));
  }
  return numbers;
}

// Without returns a copy of the object without some members.
Json Without(Json object, std::initializer_list<const char*> names) {
  for (const char* name : names) object.erase(name);
  return object;
}

Result<LuksKeyslot> ReadKeyslot(unsigned id, const Json& slot) {
  LuksKeyslot keyslot;
  keyslot.id = id;
  const Json* area = Member(slot, "area");
  const auto offset = area == nullptr ? std::nullopt : SizeOf(*area, "offset");
  const auto size = area == nullptr ? std::nullopt : SizeOf(*area, "size");
  if (!offset || !size || *size > kMaxAreaBytes) {
    return Damaged(fmt::format("keyslot {} names no area", id));
  }
  keyslot.area_offset = *offset;
  keyslot.area_bytes = *size;
  if (const Json* kdf = Member(slot, "kdf")) keyslot.kdf = TextOf(*kdf, "type");
  // The priority decides in which order slots are tried, not what opens this one.
  keyslot.metadata =
      Without(slot, {"priority"}).dump(-1, ' ', true, Json::error_handler_t::replace);
  return keyslot;
}

// ReadObjects calls `read` for each numbered member of a section, by number.
Status ReadObjects(const Json& root, const char* section, unsigned max_number,
                   const std::function<Status(unsigned id, const Json& object)>& read) {
  const Json* objects = Member(root, section);
  if (objects == nullptr || !objects->is_object()) {
    return Damaged(fmt::format("it has no {}", section));
  }
  std::vector<std::pair<unsigned, const Json*>> sorted;
  for (const auto& [name, object] : objects->items()) {
    const auto id = ParseNumber(name);
    // "01" would be another member than "1", with one number.
    if (!id || *id >= max_number || std::to_string(*id) != name || !object.is_object()) {
      return Damaged(fmt::format("{} has a member that is none", section));
    }
    sorted.emplace_back(static_cast<unsigned>(*id), &object);
  }
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [id, object] : sorted) RETURN_IF_ERROR(read(id, *object));
  return Ok();
}

Status ReadMetadata(const Json& root, LuksHeader& header) {
  RETURN_IF_ERROR(
      ReadObjects(root, "keyslots", kMaxKeyslots, [&](unsigned id, const Json& object) -> Status {
        ASSIGN_OR_RETURN(LuksKeyslot slot, ReadKeyslot(id, object));
        header.keyslots.push_back(std::move(slot));
        return Ok();
      }));
  RETURN_IF_ERROR(
      ReadObjects(root, "tokens", kMaxTokens, [&](unsigned id, const Json& object) -> Status {
        std::string json = object.dump(-1, ' ', true, Json::error_handler_t::replace);
        if (json.size() > kMaxLuksTokenBytes) return Damaged(fmt::format("token {} is huge", id));
        header.tokens.push_back({id, std::move(json)});
        return Ok();
      }));
  unsigned segment = 1024;
  RETURN_IF_ERROR(ReadObjects(root, "segments", 1024, [&](unsigned id, const Json& object) {
    if (TextOf(object, "type") == "crypt") segment = std::min(segment, id);
    return Ok();
  }));
  bool found = false;
  RETURN_IF_ERROR(
      ReadObjects(root, "digests", 1024, [&](unsigned /*id*/, const Json& object) -> Status {
        if (found || !Numbers(object, "segments").contains(segment)) return Ok();
        found = true;
        const std::string digest = Without(object, {"keyslots", "segments"})
                                       .dump(-1, ' ', true, Json::error_handler_t::replace);
        constexpr std::uint8_t kEnd[] = {0};
        header.volume = Sha256({AsBytes("keyescrow luks volume/1"), kEnd, AsBytes(header.uuid),
                                kEnd, AsBytes(digest)});
        const std::set<unsigned> bound = Numbers(object, "keyslots");
        for (LuksKeyslot& slot : header.keyslots) {
          if (!bound.contains(slot.id)) continue;
          slot.opens_volume = true;
          const Json& source = root["keyslots"][std::to_string(slot.id)];
          const Json* size = Member(source, "key_size");
          if (size != nullptr && size->is_number_unsigned() && header.volume_key_bytes == 0) {
            header.volume_key_bytes = size->get<std::size_t>();
          }
        }
        return Ok();
      }));
  if (!found) {
    return Invalid("the LUKS2 volume has no encrypted segment with a digest of its key",
                   "name a volume that 'cryptsetup luksFormat --type luks2' made");
  }
  if (header.volume_key_bytes > 4096) return Damaged("the volume key's size is impossible");
  const Json* config = Member(root, "config");
  const auto area = config == nullptr ? std::nullopt : SizeOf(*config, "keyslots_size");
  if (!area) return Damaged("it has no config");
  header.keyslots_bytes = *area;
  if (const Json* requirements = Member(*config, "requirements")) {
    if (const Json* mandatory = Member(*requirements, "mandatory");
        mandatory != nullptr && mandatory->is_array()) {
      for (const Json& item : *mandatory) {
        if (item.is_string()) header.requirements.push_back(item.get<std::string>());
      }
    }
  }
  return Ok();
}

// CheckBinary says what is wrong with the binary header and its checksum.
Status CheckBinary(ByteView bytes, bool is_secondary) {
  if (bytes.size() < kBinaryBytes) return Invalid("it is too short for a LUKS header");
  if (!StartsWith(bytes, is_secondary ? ByteView(kSecondMagic) : ByteView(kMagic))) {
    return Invalid("it is no LUKS volume",
                   "name a LUKS2 volume's block device or image; where its header is detached, "
                   "name the header's file");
  }
  const std::uint64_t version = Number(bytes, kVersionAt, 2);
  if (version == 1) {
    return Invalid("it is a LUKS1 volume, and keyescrow handles LUKS2 alone",
                   "convert it with 'cryptsetup convert --type luks2' (keep a header backup), or "
                   "escrow a key file of it with 'file:'");
  }
  if (version != 2) return Invalid(fmt::format("its LUKS version {} is unknown", version));
  const std::uint64_t size = Number(bytes, kSizeAt, 8);
  if (size < 4 * kBinaryBytes || size > kMaxHeaderBytes || (size & (size - 1)) != 0) {
    return Damaged("its size is impossible");
  }
  if (bytes.size() < size) return Damaged("it is cut short");
  if (Number(bytes, kOffsetAt, 8) != (is_secondary ? size : 0)) {
    return Damaged("it says that it stands elsewhere");
  }
  if (Text(bytes, kChecksumNameAt, kChecksumNameBytes) != "sha256") {
    return Damaged("its checksum is of an unknown kind");
  }
  constexpr std::uint8_t kZeros[kChecksumBytes] = {};
  const ByteView after = bytes.subspan(
      kChecksumAt + kChecksumBytes, static_cast<std::size_t>(size) - kChecksumAt - kChecksumBytes);
  const Bytes32 sum = Sha256({bytes.first(kChecksumAt), kZeros, after});
  if (!std::equal(sum.begin(), sum.end(), bytes.begin() + kChecksumAt)) {
    return Damaged("its checksum is wrong");
  }
  return Ok();
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(fd_); }
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<int> OpenVolume(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    const int error_number = errno;
    const bool missing = error_number == ENOENT || error_number == ENOTDIR;
    return ErrnoError(missing ? ErrorCode::kNotFound : ErrorCode::kSourceUnreadable,
                      Action::kFixInput, "cannot open the LUKS volume " + path,
                      missing ? "check the path; 'lsblk --fs' lists the volumes"
                              : "run as a user who may read it, as root for a device",
                      error_number);
  }
  struct stat status {};
  if (fstat(fd, &status) != 0 || (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))) {
    close(fd);
    return Error(ErrorCode::kInvalidLocation, Action::kFixInput,
                 path + " is neither a block device nor a file",
                 "name the block device or image of a LUKS2 volume");
  }
  return fd;
}

// ReadAt returns up to `size` bytes; fewer at the end of the volume.
Result<Bytes> ReadAt(int fd, const std::string& path, std::uint64_t offset, std::size_t size) {
  Bytes bytes(size);
  std::size_t have = 0;
  while (have < size) {
    const ssize_t count =
        pread(fd, bytes.data() + have, size - have, static_cast<off_t>(offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return ErrnoError(ErrorCode::kSourceUnreadable, Action::kCheckSystemState,
                        "cannot read the header of " + path, "look at the kernel's log", errno);
    }
    if (count == 0) break;
    have += static_cast<std::size_t>(count);
  }
  bytes.resize(have);
  return bytes;
}

// ReadOne reads one of the two headers; its sequence number decides which of them is newer.
Result<std::pair<std::uint64_t, LuksHeader>> ReadOne(int fd, const std::string& path,
                                                     std::uint64_t offset) {
  ASSIGN_OR_RETURN(Bytes bytes, ReadAt(fd, path, offset, kBinaryBytes));
  if (bytes.size() == kBinaryBytes) {
    const std::uint64_t size = Number(bytes, kSizeAt, 8);
    if (size > kBinaryBytes && size <= kMaxHeaderBytes) {
      ASSIGN_OR_RETURN(bytes, ReadAt(fd, path, offset, static_cast<std::size_t>(size)));
    }
  }
  ASSIGN_OR_RETURN(LuksHeader header, ParseLuksHeader(bytes, offset != 0));
  return std::pair(Number(bytes, kSequenceAt, 8), std::move(header));
}

}  // namespace

const LuksKeyslot* LuksHeader::FindKeyslot(unsigned id) const {
  const auto found = std::find_if(keyslots.begin(), keyslots.end(),
                                  [id](const LuksKeyslot& slot) { return slot.id == id; });
  return found == keyslots.end() ? nullptr : &*found;
}

bool LuksHeader::IsReencrypting() const {
  return std::any_of(requirements.begin(), requirements.end(),
                     [](const std::string& name) { return name.find("reencrypt") != name.npos; });
}

bool LuksHeader::HasRoom() const {
  if (keyslots.size() >= kMaxKeyslots) return false;
  const std::uint64_t needed =
      (volume_key_bytes * kStripes + kAlignment - 1) / kAlignment * kAlignment;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> used;
  for (const LuksKeyslot& slot : keyslots) used.emplace_back(slot.area_offset, slot.area_bytes);
  std::sort(used.begin(), used.end());
  std::uint64_t free_from = keyslots_offset;
  for (const auto& [offset, size] : used) {
    if (offset >= free_from && offset - free_from >= needed) return true;
    free_from = std::max(free_from, offset + size);
  }
  const std::uint64_t end = keyslots_offset + keyslots_bytes;
  return end >= free_from && end - free_from >= needed;
}

bool IsLuks(ByteView first_bytes) { return StartsWith(first_bytes, kMagic); }

Result<LuksHeader> ParseLuksHeader(ByteView bytes, bool is_secondary) {
  RETURN_IF_ERROR(CheckBinary(bytes, is_secondary));
  const auto size = static_cast<std::size_t>(Number(bytes, kSizeAt, 8));
  LuksHeader header;
  header.uuid = Text(bytes, kUuidAt, kUuidBytes);
  header.label = Text(bytes, kLabelAt, kLabelBytes);
  header.keyslots_offset = 2 * size;
  std::string_view json = AsText(bytes.subspan(kBinaryBytes, size - kBinaryBytes));
  json = json.substr(0, json.find('\0'));
  if (NestsTooDeep(json)) return Damaged("its JSON nests too deep");
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Damaged("its JSON does not parse");
  RETURN_IF_ERROR(ReadMetadata(root, header));
  return header;
}

Result<LuksHeader> ReadLuksHeader(const std::string& path) {
  ASSIGN_OR_RETURN(const int fd, OpenVolume(path));
  const Descriptor volume(fd);
  auto first = ReadOne(fd, path, 0);
  if (!first && first.error().code() != ErrorCode::kInvalidLocation)
    return std::move(first).error();
  std::optional<std::pair<std::uint64_t, LuksHeader>> best;
  if (first) best = std::move(*first);
  // The second header stands behind the first, whose size is not known where it is damaged.
  for (std::uint64_t offset = 4 * kBinaryBytes; offset <= kMaxHeaderBytes; offset *= 2) {
    ASSIGN_OR_RETURN(const Bytes magic, ReadAt(fd, path, offset, sizeof kSecondMagic));
    if (!StartsWith(magic, kSecondMagic)) continue;
    auto second = ReadOne(fd, path, offset);
    if (second && (!best || second->first > best->first)) best = std::move(*second);
    if (best) break;
  }
  if (best) return std::move(best->second);
  return std::move(first).error().WithContext(path);
}

Result<Bytes32> KeyslotHash(const std::string& path, const LuksHeader& header, unsigned keyslot) {
  const LuksKeyslot* slot = header.FindKeyslot(keyslot);
  if (slot == nullptr) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 fmt::format("{} has no keyslot {}", path, keyslot),
                 "'cryptsetup luksDump' lists its keyslots");
  }
  ASSIGN_OR_RETURN(const int fd, OpenVolume(path));
  const Descriptor volume(fd);
  ASSIGN_OR_RETURN(const Bytes area,
                   ReadAt(fd, path, slot->area_offset, static_cast<std::size_t>(slot->area_bytes)));
  constexpr std::uint8_t kEnd[] = {0};
  const std::uint8_t bound[] = {slot->opens_volume ? std::uint8_t{1} : std::uint8_t{0}};
  return Sha256({AsBytes("keyescrow luks keyslot/1"), kEnd, header.volume, bound,
                 AsBytes(slot->metadata), kEnd, area});
}

}  // namespace keyescrow::agent
