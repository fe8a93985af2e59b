#include "agent/usecases/foreign_escrow.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/key_locations/luks_header.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/foreign_mark.h"
#include "agent/usecases/foreign_pins.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxFileBytes = 1u << 20;
constexpr std::size_t kStartBytes = 512;

std::string PathOf(const std::string& file) {
  return file.starts_with("file:") || file.starts_with("luks:") ? file.substr(5) : file;
}

// ReadStart reads up to `size` bytes of a file; a terminal, a pipe or a folder is not waited for.
Result<std::string> ReadStart(const std::string& path, std::size_t size) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  int error_number = fd < 0 ? errno : 0;
  struct stat status {};
  if (fd >= 0 && fstat(fd, &status) != 0) error_number = errno;
  const bool readable = S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
  if (fd >= 0 && error_number == 0 && !readable) error_number = EINVAL;
  std::string bytes(size, '\0');
  std::size_t have = 0;
  while (error_number == 0 && have < size) {
    const ssize_t count = read(fd, bytes.data() + have, size - have);
    if (count == 0) break;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) error_number = errno;
    if (count > 0) have += static_cast<std::size_t>(count);
  }
  if (fd >= 0) close(fd);
  if (error_number != 0) {
    const bool missing = error_number == ENOENT || error_number == ENOTDIR;
    return ErrnoError(missing ? ErrorCode::kNotFound : ErrorCode::kSourceUnreadable,
                      Action::kFixInput, "cannot read " + path,
                      "name a clevis JWE file, or a LUKS2 volume or image", error_number);
  }
  bytes.resize(have);
  return bytes;
}

bool IsCompactJwe(std::string_view text) {
  return text.starts_with("ey") && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.' || c == '\n' || c == '\r';
         });
}

Result<std::vector<ForeignEscrow>> ReadVolume(const std::string& path) {
  std::vector<ForeignEscrow> found;
  ASSIGN_OR_RETURN(const LuksHeader header, ReadLuksHeader(path));
  for (const LuksToken& token : header.tokens) {
    auto escrow = ParseLuksTokenJson(token.id, token.json);
    if (escrow && !*escrow) continue;
    ForeignEscrow& item = found.emplace_back();
    if (escrow) {
      item = std::move(**escrow);
    } else {
      item.item = fmt::format("token {}", token.id);
      item.kind = "unreadable";
      item.opens_by.name = "unreadable";
      item.opens_by.detail = escrow.error().message();
      item.sha256 = Sha256(AsBytes(token.json));
    }
    item.volume = CleanForeignName(header.uuid);
    // A keyslot that is not there, or gives another key than the volume's, is not opened by it.
    std::erase_if(item.slots, [&](unsigned slot) {
      const LuksKeyslot* keyslot = header.FindKeyslot(slot);
      return keyslot == nullptr || !keyslot->opens_volume;
    });
  }
  if (!found.empty()) return found;
  return Error(ErrorCode::kNotFound, Action::kFixInput, path + " has no token of clevis or systemd",
               "'cryptsetup luksDump' lists its tokens; its keyslots are not an inventory");
}

// HasElsewhere: the volume of that UUID is at `place` too, as another file or device than `path`:
// an image's copy, or the backup of a header.
bool HasElsewhere(const std::string& place, const std::string& volume, const std::string& path) {
  struct stat one {};
  struct stat other {};
  if (stat(place.c_str(), &one) != 0 || stat(path.c_str(), &other) != 0) return false;
  const bool devices = S_ISBLK(one.st_mode) && S_ISBLK(other.st_mode);
  const bool same = devices ? one.st_rdev == other.st_rdev
                            : one.st_dev == other.st_dev && one.st_ino == other.st_ino;
  if (same) return false;
  const auto header = ReadLuksHeader(place);
  return header && CleanForeignName(header->uuid) == volume;
}

audit::Event MakeEvent(audit::EventType type, const store::ForeignEscrowRecord& record,
                       const std::string& what) {
  audit::Event event;
  event.type = type;
  event.reason = ForeignReason(record, what);
  return event;
}

// Update: what one import changes.
class Update {
 public:
  explicit Update(std::vector<store::ForeignEscrowRecord> known) : known_(std::move(known)) {}

  bool Knows(const std::string& place) const {
    return std::any_of(known_.begin(), known_.end(),
                       [&](const auto& record) { return record.place == place; });
  }

  void Find(ForeignEscrow& escrow) {
    const store::ForeignEscrowRecord record{escrow.place,
                                            escrow.item,
                                            escrow.kind,
                                            escrow.volume,
                                            WriteForeignPins(escrow.opens_by, escrow.slots),
                                            escrow.sha256,
                                            *escrow.found};
    const auto same = std::find_if(known_.begin(), known_.end(), [&](const auto& row) {
      return row.place == record.place && row.item == record.item && row.kind == record.kind &&
             row.volume == record.volume && row.sha256 == record.sha256 &&
             row.opens_by == record.opens_by;
    });
    if (same != known_.end()) {
      escrow.found = same->found;
      return;
    }
    std::string what = "opened by " + ForeignExpression(escrow.opens_by);
    if (escrow.opens_nothing()) what = "opens no keyslot; for " + what;
    events_.push_back(MakeEvent(audit::EventType::kInventoryFound, record, what));
    change_.foreign_escrows.push_back(record);
  }

  // Drop removes what is known of `place` and not among `found`, and what the volume of `found`
  // has at paths that it left.
  void Drop(const std::string& place, const std::vector<ForeignEscrow>& found) {
    const std::string volume = found.empty() ? "" : found.front().volume;
    for (const store::ForeignEscrowRecord& record : known_) {
      std::string why;
      if (record.place == place) {
        const bool still = std::any_of(found.begin(), found.end(), [&](const auto& escrow) {
          return escrow.item == record.item;
        });
        if (!still) why = "no longer there";
      } else if (!volume.empty() && record.volume == volume &&
                 !HasElsewhere(record.place, volume, place)) {
        why = "the volume is now at " + place;
      }
      if (why.empty()) continue;
      events_.push_back(MakeEvent(audit::EventType::kInventoryGone, record, why));
      change_.removed_foreign_escrows.push_back({record.place, record.item});
    }
  }

  std::size_t num_new() const { return change_.foreign_escrows.size(); }
  std::size_t num_gone() const { return change_.removed_foreign_escrows.size(); }

  Status Commit(Agent& agent) {
    if (events_.empty()) return Ok();
    RETURN_IF_ERROR(agent.journal().Append(std::move(events_), change_));
    return Ok();
  }

 private:
  std::vector<store::ForeignEscrowRecord> known_;
  std::vector<audit::Event> events_;
  store::Change change_;
};

}  // namespace

bool LooksForeign(const std::string& file) {
  const auto start = ReadStart(PathOf(file), kStartBytes);
  return start && (IsLuks(AsBytes(*start)) || IsCompactJwe(*start));
}

Result<std::vector<ForeignEscrow>> ReadForeign(const std::string& file) {
  const std::string path = PathOf(file);
  ASSIGN_OR_RETURN(std::string text, ReadStart(path, kMaxFileBytes + 1));
  std::vector<ForeignEscrow> found;
  if (IsLuks(AsBytes(text))) {
    ASSIGN_OR_RETURN(found, ReadVolume(path));
  } else if (!IsCompactJwe(std::string_view(text).substr(0, kStartBytes))) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 path + " is neither a JWE of clevis nor a LUKS volume",
                 "name a clevis JWE file, or a LUKS2 volume or image");
  } else {
    if (text.size() > kMaxFileBytes) {
      return Error(ErrorCode::kSourceUnreadable, Action::kFixInput, path + " is larger than 1 MiB",
                   "name a file that 'clevis encrypt' made of a key");
    }
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    auto escrow = ParseClevisJwe(text);
    if (!escrow) return std::move(escrow).error().WithContext(path);
    found.push_back(std::move(*escrow));
  }
  for (ForeignEscrow& escrow : found) escrow.place = path;
  return found;
}

Result<ForeignImport> ImportForeign(Agent& agent, const std::string& file) {
  const std::string place = AbsolutePath(PathOf(file));
  ASSIGN_OR_RETURN(auto known, agent.store().ForeignEscrows());
  Update update(std::move(known));
  ForeignImport result;
  auto found = ReadForeign(place);
  if (found) {
    result.found = std::move(*found);
  } else if (found.error().code() != ErrorCode::kNotFound || !update.Knows(place)) {
    return std::move(found).error();
  }
  for (ForeignEscrow& escrow : result.found) {
    escrow.found = agent.Now();
    update.Find(escrow);
  }
  update.Drop(place, result.found);
  result.num_new = update.num_new();
  result.num_gone = update.num_gone();
  RETURN_IF_ERROR(update.Commit(agent));
  return result;
}

Result<std::vector<ForeignEscrow>> ForeignInventory(Agent& agent) {
  ASSIGN_OR_RETURN(const auto records, agent.store().ForeignEscrows());
  std::vector<ForeignEscrow> inventory;
  for (const store::ForeignEscrowRecord& record : records) {
    ForeignEscrow& escrow = inventory.emplace_back();
    escrow.place = record.place;
    escrow.item = record.item;
    escrow.kind = record.kind;
    escrow.volume = record.volume;
    escrow.sha256 = record.sha256;
    escrow.found = record.found;
    ReadForeignPins(record.opens_by, escrow.opens_by, escrow.slots);
  }
  return inventory;
}

Result<bool> MeansForeign(Agent& agent, const std::string& file) {
  if (LooksForeign(file)) return true;
  ASSIGN_OR_RETURN(auto known, agent.store().ForeignEscrows());
  if (!Update(std::move(known)).Knows(AbsolutePath(PathOf(file)))) return false;
  const auto start = ReadStart(PathOf(file), 1);
  return !start || *start != "{";
}

}  // namespace keyescrow::agent
