#include "agent/report/ustar.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

namespace keyescrow::agent::report {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::uint64_t kMaxRead = std::uint64_t{1} << 30;
// The largest that a field of eleven octal digits holds.
constexpr std::uint64_t kMaxNumber = (std::uint64_t{1} << 33) - 1;
using Block = std::array<char, kBlock>;

// Where the fields of a header stand, and how long they are.
struct Field {
  std::size_t at, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kOwner{108, 8}, kGroup{116, 8}, kSize{124, 12},
    kTime{136, 12}, kChecksum{148, 8}, kMagic{257, 6}, kVersion{263, 2}, kPrefix{345, 155};
constexpr std::size_t kTypeAt = 156;

bool IsZero(const Block& block) {
  return std::all_of(block.begin(), block.end(), [](char c) { return c == '\0'; });
}

std::uint64_t Padding(std::uint64_t size) { return (kBlock - size % kBlock) % kBlock; }

void PutText(Block& block, Field field, std::string_view text) {
  std::copy_n(text.begin(), std::min(text.size(), field.size),
              block.begin() + static_cast<std::ptrdiff_t>(field.at));
}

void PutOctal(Block& block, Field field, std::uint64_t value) {
  PutText(block, field, fmt::format("{:0{}o}", value, field.size - 1));
}

std::uint64_t Checksum(const Block& block) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    const bool own = i >= kChecksum.at && i < kChecksum.at + kChecksum.size;
    sum += own ? ' ' : static_cast<unsigned char>(block[i]);
  }
  return sum;
}

std::string_view GetText(const Block& block, Field field) {
  const std::string_view text(block.data() + field.at, field.size);
  return text.substr(0, text.find('\0'));
}

// GetOctal takes what PutOctal writes alone.
std::optional<std::uint64_t> GetOctal(const Block& block, Field field) {
  const std::string_view digits = GetText(block, field);
  if (digits.size() != field.size - 1) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '7') return std::nullopt;
    value = value * 8 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

struct Header {
  std::string_view folder;
  std::string_view name;
  std::uint64_t size_bytes = 0;
  std::uint64_t time = 0;
};

Block FormatHeader(const Header& header) {
  Block block{};
  PutText(block, kName, header.name);
  PutText(block, kPrefix, header.folder);
  PutOctal(block, kMode, 0644);
  PutOctal(block, kOwner, 0);
  PutOctal(block, kGroup, 0);
  PutOctal(block, kSize, header.size_bytes);
  PutOctal(block, kTime, header.time);
  block[kTypeAt] = '0';
  PutText(block, kMagic, "ustar");
  PutText(block, kVersion, "00");
  PutText(block, kChecksum, fmt::format("{:06o}", Checksum(block)));
  block[kChecksum.at + kChecksum.size - 1] = ' ';
  return block;
}

// ParseHeader takes what FormatHeader writes; the texts borrow from the block.
std::optional<Header> ParseHeader(const Block& block) {
  const auto size = GetOctal(block, kSize);
  const auto time = GetOctal(block, kTime);
  if (!size || !time) return std::nullopt;
  const Header header{GetText(block, kPrefix), GetText(block, kName), *size, *time};
  if (!IsFolderName(header.folder) || !IsMemberName(header.name)) return std::nullopt;
  if (FormatHeader(header) != block) return std::nullopt;
  return header;
}

bool HasNameCharacters(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
  });
}

}  // namespace

bool IsMemberName(std::string_view name) {
  if (name.empty() || name.size() > kName.size || !HasNameCharacters(name)) return false;
  for (;;) {
    const std::size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    name.remove_prefix(slash + 1);
  }
}

bool IsFolderName(std::string_view name) {
  return !name.empty() && name.size() <= kPrefix.size && name != "." && name != ".." &&
         HasNameCharacters(name) && name.find('/') == std::string_view::npos;
}

Error PackDamaged(std::string message) {
  return Error(ErrorCode::kLogDamaged, Action::kFixInput, std::move(message),
               "get the pack again from the host, by a way that keeps it whole");
}

Status TarWriter::Put(std::string_view bytes) {
  size_bytes_ += bytes.size();
  return write_(AsBytes(bytes));
}

Status TarWriter::Add(std::string_view name, std::string_view bytes) {
  const bool fits = IsMemberName(name) && IsFolderName(folder_) && bytes.size() <= kMaxNumber &&
                    time_ >= 0 && static_cast<std::uint64_t>(time_) <= kMaxNumber;
  if (!fits) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "an archive cannot hold the member " + std::string(name), "report this");
  }
  const Block block =
      FormatHeader({folder_, name, bytes.size(), static_cast<std::uint64_t>(time_)});
  RETURN_IF_ERROR(Put({block.data(), block.size()}));
  RETURN_IF_ERROR(Put(bytes));
  const std::uint64_t padding = Padding(bytes.size());
  return padding == 0 ? Ok() : Put(std::string(padding, '\0'));
}

Status TarWriter::Finish() { return Put(std::string(2 * kBlock, '\0')); }

TarReader::TarReader(TarReader&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      file_bytes_(other.file_bytes_),
      folder_(std::move(other.folder_)),
      time_(other.time_),
      members_(std::move(other.members_)),
      names_(std::move(other.names_)) {}

TarReader::~TarReader() {
  if (fd_ >= 0) close(fd_);
}

Status TarReader::ReadAt(std::uint64_t offset, char* bytes, std::size_t size) const {
  while (size > 0) {
    const ssize_t count = pread(fd_, bytes, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return PackDamaged("the pack is cut off");
    bytes += count;
    offset += static_cast<std::uint64_t>(count);
    size -= static_cast<std::size_t>(count);
  }
  return Ok();
}

Result<TarReader> TarReader::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  struct stat status {};
  if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    if (fd >= 0) close(fd);
    return Error(ErrorCode::kNotFound, Action::kFixInput, "cannot read the pack " + path,
                 "name the file that 'keyescrow audit export' wrote");
  }
  return FromDescriptor(fd);
}

Result<TarReader> TarReader::FromDescriptor(int fd) {
  TarReader reader(fd);
  struct stat status {};
  if (fstat(fd, &status) != 0) return PackDamaged("the pack cannot be read");
  reader.file_bytes_ = static_cast<std::uint64_t>(status.st_size);
  RETURN_IF_ERROR(reader.ReadHeaders());
  return reader;
}

Status TarReader::ReadHeaders() {
  std::uint64_t at = 0;
  for (;;) {
    Block block{};
    RETURN_IF_ERROR(ReadAt(at, block.data(), block.size()));
    if (IsZero(block)) break;
    const auto header = ParseHeader(block);
    if (!header) {
      return PackDamaged(fmt::format("the pack has no header that a pack has at byte {}", at));
    }
    if (members_.empty()) {
      folder_ = header->folder;
      time_ = static_cast<std::int64_t>(header->time);
    } else if (folder_ != header->folder || time_ != static_cast<std::int64_t>(header->time)) {
      return PackDamaged(
          fmt::format("{} is of another folder or time than the members before it", header->name));
    }
    at += kBlock;
    const std::uint64_t size = header->size_bytes;
    const std::uint64_t padding = Padding(size);
    if (size + padding > file_bytes_ - std::min(at, file_bytes_)) {
      return PackDamaged(fmt::format("the pack is cut off in {}", header->name));
    }
    const auto [member, added] = members_.emplace(header->name, Member{at, size});
    if (!added) return PackDamaged(fmt::format("the pack has two members {}", header->name));
    names_.emplace_back(member->first);
    Block rest{};
    RETURN_IF_ERROR(ReadAt(at + size, rest.data(), padding));
    if (!IsZero(rest)) {
      return PackDamaged(fmt::format("something stands behind the end of {}", header->name));
    }
    at += size + padding;
  }
  return CheckEnd(at);
}

Status TarReader::CheckEnd(std::uint64_t at) const {
  Block second{};
  RETURN_IF_ERROR(ReadAt(at + kBlock, second.data(), second.size()));
  if (!IsZero(second) || file_bytes_ != at + 2 * kBlock) {
    return PackDamaged("something stands behind the end of the pack");
  }
  return Ok();
}

Result<std::string> TarReader::Read(std::string_view name) const {
  const auto found = members_.find(name);
  if (found == members_.end()) return PackDamaged(std::string(name) + " is missing");
  const Member& member = found->second;
  if (member.size_bytes > kMaxRead) return PackDamaged(std::string(name) + " is too long");
  std::string bytes(static_cast<std::size_t>(member.size_bytes), '\0');
  RETURN_IF_ERROR(ReadAt(member.offset, bytes.data(), bytes.size()));
  return bytes;
}

bool IsTar(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return false;
  Block block{};
  const ssize_t count = pread(fd, block.data(), block.size(), 0);
  close(fd);
  return count == static_cast<ssize_t>(kBlock) && GetText(block, kMagic) == "ustar";
}

}  // namespace keyescrow::agent::report
