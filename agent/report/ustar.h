// Archives in POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"): as much of it as an
// evidence pack needs, each archive in one form only. The same members, folder and time give the
// same bytes, and what a reader takes is byte for byte what the writer writes. FORMAT.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::report {

// A member's name: at most 100 bytes of letters, digits and `._-/`; no part of it is empty, `.` or
// `..`. A folder's: at most 155 of the same, without `/`.
bool IsMemberName(std::string_view name);
bool IsFolderName(std::string_view name);

// TarWriter writes regular files of one folder, mode 0644, owner 0, one after the other.
class TarWriter {
 public:
  using Write = std::function<Status(ByteView)>;
  // `time`: Unix seconds, not before 1970.
  TarWriter(std::string folder, std::int64_t time, Write write)
      : folder_(std::move(folder)), time_(time), write_(std::move(write)) {}

  // Add writes FOLDER/NAME. Errors: kInternal for a name, size or time that an archive cannot hold;
  // those of `write`.
  Status Add(std::string_view name, std::string_view bytes);
  // Finish writes the end of the archive.
  Status Finish();
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  Status Put(std::string_view bytes);

  std::string folder_;
  std::int64_t time_;
  Write write_;
  std::uint64_t size_bytes_ = 0;
};

// TarReader reads such an archive, member by member, from a file that it keeps open.
class TarReader {
 public:
  // Open reads the headers alone. Refused is whatever TarWriter does not write: links, folders,
  // devices, extended headers, names that leave the folder or stand twice, a second folder or time,
  // another checksum or owner, padding with something in it, an archive that is cut off or goes on
  // behind its end. Errors: kLogDamaged; kNotFound where there is no such regular file.
  static Result<TarReader> Open(const std::string& path);
  // FromDescriptor takes `fd` over, which must be of a regular file. Errors: kLogDamaged.
  static Result<TarReader> FromDescriptor(int fd);
  TarReader(TarReader&& other) noexcept;
  TarReader& operator=(TarReader&&) = delete;
  ~TarReader();

  struct Member {
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
  };
  // members by name, without the folder; names in the archive's order.
  const std::map<std::string, Member, std::less<>>& members() const { return members_; }
  const std::vector<std::string_view>& names() const { return names_; }
  const std::string& folder() const { return folder_; }
  std::int64_t time() const { return time_; }

  // Read returns a member's bytes. Errors: kLogDamaged (missing, over 1 GiB, cut off).
  Result<std::string> Read(std::string_view name) const;

 private:
  explicit TarReader(int fd) : fd_(fd) {}
  Status ReadHeaders();
  Status CheckEnd(std::uint64_t at) const;
  Status ReadAt(std::uint64_t offset, char* bytes, std::size_t size) const;

  int fd_;
  std::uint64_t file_bytes_ = 0;
  std::string folder_;
  std::int64_t time_ = 0;
  std::map<std::string, Member, std::less<>> members_;
  std::vector<std::string_view> names_;  // borrowed from members_
};

// IsTar tells whether a file begins as a ustar archive does.
bool IsTar(const std::string& path);

Error PackDamaged(std::string message);

}  // namespace keyescrow::agent::report
