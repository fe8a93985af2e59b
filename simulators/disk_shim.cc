// disk_shim.so: LD_PRELOADed between a program and the disk. It looks at the calls that touch files
// under DISK_SHIM_ROOT (an absolute path), and at writes to standard output.
//
//   DISK_SHIM_LOG=FILE       append what was done, a JSON object a line, in the order of the calls:
//                            create, mkdir, write, truncate, sync, rename, link, unlink; "out" is a
//                            write to standard output, where a program acknowledges
//   DISK_SHIM_FAULT=CALL@N=ACTION
//                            CALL: open | read | write | sync | truncate | rename | link | unlink |
//                            mkdir; N: the N-th such call, from 1
//                            ACTION: an errno's number | short (half is read or written, and the
//                            rest fails with ENOSPC) | nosync (nothing is synced, yet it succeeds)
//   DISK_SHIM_KILL=N         the process is killed before the N-th call that changes the disk
//   DISK_SHIM_COUNT=FILE     at the end of each process: "CALL COUNT" lines are appended
// It defines calls that a fortified libc defines inline, which a release build would refuse.
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>

namespace {

enum Call { kOpen, kRead, kWrite, kSync, kTruncate, kRename, kLink, kUnlink, kMkdir, kNumCalls };
constexpr const char* kCallNames[kNumCalls] = {"open",   "read", "write",  "sync", "truncate",
                                               "rename", "link", "unlink", "mkdir"};

std::mutex mutex;
long counts[kNumCalls];
long num_changes = 0;

std::string_view Variable(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}
#define NEXT(function) Next<decltype(&function)>(#function)

// PathOf returns what /proc says of a descriptor.
std::string PathOf(int fd) {
  char target[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = NEXT(readlink)(link.c_str(), target, sizeof target);
  return size < 0 ? std::string() : std::string(target, static_cast<std::size_t>(size));
}

std::string PathAt(int folder, const char* name) {
  if (name[0] == '/') return name;
  if (folder != AT_FDCWD) return PathOf(folder) + "/" + name;
  char current[PATH_MAX];
  return getcwd(current, sizeof current) == nullptr ? name : std::string(current) + "/" + name;
}

bool IsUnderRoot(const std::string& path) {
  const std::string_view root = Variable("DISK_SHIM_ROOT");
  // SQLite's shared memory is no disk's business: it is made anew after a crash.
  return !root.empty() && path.starts_with(root) && !path.ends_with("-shm") &&
         (path.size() == root.size() || path[root.size()] == '/');
}

void Append(const std::string& line, const char* variable) {
  const std::string file(Variable(variable));
  if (file.empty()) return;
  const int fd = NEXT(open)(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0 || NEXT(write)(fd, line.data(), line.size()) < 0) abort();
  NEXT(close)(fd);
}

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

std::string Hex(const void* data, std::size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto* bytes = static_cast<const unsigned char*>(data);
  std::string hex;
  hex.reserve(size * 2);
  for (std::size_t i = 0; i < size; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

unsigned long InodeOf(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

void Log(const char* operation, const std::string& members) {
  Append(std::string("{\"op\":\"") + operation + "\"," + members + "}\n", "DISK_SHIM_LOG");
}

struct Fault {
  int error_number = 0;
  bool is_short = false;
  bool no_sync = false;
};

// Enter counts a call and tells what should befall it. It kills where that was asked for.
Fault Enter(Call call, bool changes) {
  Fault fault;
  ++counts[call];
  if (changes) {
    ++num_changes;
    const std::string_view kill_at = Variable("DISK_SHIM_KILL");
    if (!kill_at.empty() && num_changes == atol(kill_at.data())) kill(getpid(), SIGKILL);
  }
  const std::string_view rule = Variable("DISK_SHIM_FAULT");
  const std::size_t at = rule.find('@');
  const std::size_t equals = rule.find('=');
  if (at == rule.npos || equals == rule.npos || rule.substr(0, at) != kCallNames[call])
    return fault;
  if (atol(rule.data() + at + 1) != counts[call]) return fault;
  const std::string_view action = rule.substr(equals + 1);
  fault.is_short = action == "short";
  fault.no_sync = action == "nosync";
  if (!fault.is_short && !fault.no_sync) fault.error_number = atoi(action.data());
  return fault;
}

int Fail(int error_number) {
  errno = error_number;
  return -1;
}

struct AtExit {
  ~AtExit() {
    for (int call = 0; call < kNumCalls; ++call) {
      Append(std::string(kCallNames[call]) + " " + std::to_string(counts[call]) + "\n",
             "DISK_SHIM_COUNT");
    }
    Append("changes " + std::to_string(num_changes) + "\n", "DISK_SHIM_COUNT");
  }
} at_exit;

int Open(int folder, const char* name, int flags, mode_t mode) {
  const auto next = NEXT(openat);
  const std::string path = PathAt(folder, name);
  if (!IsUnderRoot(path)) return next(folder, name, flags, mode);
  const std::lock_guard lock(mutex);
  struct stat status {};
  const bool creates = (flags & O_CREAT) != 0 && lstat(path.c_str(), &status) != 0;
  const Fault fault = Enter(kOpen, creates || (flags & O_TRUNC) != 0);
  if (fault.error_number != 0) return Fail(fault.error_number);
  const int fd = next(folder, name, flags, mode);
  if (fd < 0) return fd;
  const std::string inode = ",\"ino\":" + std::to_string(InodeOf(fd));
  if (creates) Log("create", "\"path\":" + Quoted(path) + inode);
  if (!creates && (flags & O_TRUNC) != 0) {
    Log("truncate", "\"path\":" + Quoted(path) + inode + ",\"size\":0");
  }
  return fd;
}

ssize_t Write(int fd, const void* data, std::size_t size, off_t offset, bool at_offset) {
  const auto really = [&](std::size_t count) {
    return at_offset ? NEXT(pwrite64)(fd, data, count, offset) : NEXT(write)(fd, data, count);
  };
  if (fd == STDOUT_FILENO) {
    const ssize_t written = really(size);
    if (written > 0) Log("out", "\"size\":" + std::to_string(written));
    return written;
  }
  const std::string path = PathOf(fd);
  if (!IsUnderRoot(path)) return really(size);
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(kWrite, true);
  static int full_fd = -1;
  if (full_fd == fd) return Fail(ENOSPC);
  if (fault.error_number != 0) return Fail(fault.error_number);
  if (fault.is_short) {
    full_fd = fd;
    size /= 2;
    if (size == 0) return Fail(ENOSPC);
  }
  struct stat status {};
  fstat(fd, &status);
  off_t position = offset;
  if (!at_offset) {
    const bool appends = (fcntl(fd, F_GETFL) & O_APPEND) != 0;
    position = appends ? status.st_size : lseek(fd, 0, SEEK_CUR);
  }
  const ssize_t written = really(size);
  if (written > 0) {
    Log("write", "\"path\":" + Quoted(path) + ",\"ino\":" + std::to_string(status.st_ino) +
                     ",\"offset\":" + std::to_string(position) + ",\"data\":\"" +
                     Hex(data, static_cast<std::size_t>(written)) + "\"");
  }
  return written;
}

ssize_t Read(int fd, void* data, std::size_t size, off_t offset, bool at_offset) {
  const auto really = [&](std::size_t count) {
    return at_offset ? NEXT(pread64)(fd, data, count, offset) : NEXT(read)(fd, data, count);
  };
  if (!IsUnderRoot(PathOf(fd))) return really(size);
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(kRead, false);
  if (fault.error_number != 0) return Fail(fault.error_number);
  return really(fault.is_short ? size / 2 : size);
}

int Sync(int fd, int (*next)(int)) {
  const std::string path = PathOf(fd);
  if (!IsUnderRoot(path)) return next(fd);
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(kSync, true);
  if (fault.error_number != 0) return Fail(fault.error_number);
  if (fault.no_sync) return 0;
  // The file system under the test need not sync in earnest: what is durable is modelled.
  Log("sync", "\"path\":" + Quoted(path) + ",\"ino\":" + std::to_string(InodeOf(fd)));
  return 0;
}

int Truncate(int fd, off_t size) {
  const auto next = NEXT(ftruncate64);
  const std::string path = PathOf(fd);
  if (!IsUnderRoot(path)) return next(fd, size);
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(kTruncate, true);
  if (fault.error_number != 0) return Fail(fault.error_number);
  const int done = next(fd, size);
  if (done == 0) {
    Log("truncate", "\"path\":" + Quoted(path) + ",\"ino\":" + std::to_string(InodeOf(fd)) +
                        ",\"size\":" + std::to_string(size));
  }
  return done;
}

// Rename and link: two names under the root, or no business of ours.
template <typename Really>
int TwoNames(Call call, const char* operation, const std::string& from, const std::string& to,
             Really really) {
  if (!IsUnderRoot(from) && !IsUnderRoot(to)) return really();
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(call, true);
  if (fault.error_number != 0) return Fail(fault.error_number);
  const int done = really();
  if (done == 0) Log(operation, "\"from\":" + Quoted(from) + ",\"to\":" + Quoted(to));
  return done;
}

template <typename Really>
int OneName(Call call, const char* operation, const std::string& path, Really really) {
  if (!IsUnderRoot(path)) return really();
  const std::lock_guard lock(mutex);
  const Fault fault = Enter(call, true);
  if (fault.error_number != 0) return Fail(fault.error_number);
  const int done = really();
  if (done == 0) Log(operation, "\"path\":" + Quoted(path));
  return done;
}

mode_t ModeOf(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

#define MODE(flags)                             \
  va_list arguments;                            \
  va_start(arguments, flags);                   \
  const mode_t mode = ModeOf(flags, arguments); \
  va_end(arguments)

extern "C" {

int open(const char* name, int flags, ...) {
  MODE(flags);
  return Open(AT_FDCWD, name, flags, mode);
}
int open64(const char* name, int flags, ...) {
  MODE(flags);
  return Open(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}
int openat(int folder, const char* name, int flags, ...) {
  MODE(flags);
  return Open(folder, name, flags, mode);
}
int openat64(int folder, const char* name, int flags, ...) {
  MODE(flags);
  return Open(folder, name, flags | O_LARGEFILE, mode);
}
int __open_2(const char* name, int flags) { return Open(AT_FDCWD, name, flags, 0); }
int __open64_2(const char* name, int flags) { return Open(AT_FDCWD, name, flags, 0); }
int __openat_2(int folder, const char* name, int flags) { return Open(folder, name, flags, 0); }
int __openat64_2(int folder, const char* name, int flags) { return Open(folder, name, flags, 0); }

ssize_t write(int fd, const void* data, size_t size) { return Write(fd, data, size, 0, false); }
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  return Write(fd, data, size, offset, true);
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  return Write(fd, data, size, offset, true);
}
ssize_t read(int fd, void* data, size_t size) { return Read(fd, data, size, 0, false); }
ssize_t __read_chk(int fd, void* data, size_t size, size_t) {
  return Read(fd, data, size, 0, false);
}
ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  return Read(fd, data, size, offset, true);
}
ssize_t pread64(int fd, void* data, size_t size, off64_t offset) {
  return Read(fd, data, size, offset, true);
}
ssize_t __pread64_chk(int fd, void* data, size_t size, off64_t offset, size_t) {
  return Read(fd, data, size, offset, true);
}

int fsync(int fd) { return Sync(fd, NEXT(fsync)); }
int fdatasync(int fd) { return Sync(fd, NEXT(fdatasync)); }
int ftruncate(int fd, off_t size) noexcept { return Truncate(fd, size); }
int ftruncate64(int fd, off64_t size) noexcept { return Truncate(fd, size); }

int rename(const char* from, const char* to) noexcept {
  return TwoNames(kRename, "rename", PathAt(AT_FDCWD, from), PathAt(AT_FDCWD, to),
                  [&] { return NEXT(rename)(from, to); });
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return TwoNames(kRename, "rename", PathAt(from_folder, from), PathAt(to_folder, to),
                  [&] { return NEXT(renameat)(from_folder, from, to_folder, to); });
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned int flags) noexcept {
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  return TwoNames(kRename, exchange ? "exchange" : "rename", PathAt(from_folder, from),
                  PathAt(to_folder, to),
                  [&] { return NEXT(renameat2)(from_folder, from, to_folder, to, flags); });
}
int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  return TwoNames(kLink, "link", PathAt(from_folder, from), PathAt(to_folder, to),
                  [&] { return NEXT(linkat)(from_folder, from, to_folder, to, flags); });
}
int unlink(const char* name) noexcept {
  return OneName(kUnlink, "unlink", PathAt(AT_FDCWD, name), [&] { return NEXT(unlink)(name); });
}
int unlinkat(int folder, const char* name, int flags) noexcept {
  return OneName(kUnlink, "unlink", PathAt(folder, name),
                 [&] { return NEXT(unlinkat)(folder, name, flags); });
}
int rmdir(const char* name) noexcept {
  return OneName(kUnlink, "unlink", PathAt(AT_FDCWD, name), [&] { return NEXT(rmdir)(name); });
}
int mkdir(const char* name, mode_t mode) noexcept {
  return OneName(kMkdir, "mkdir", PathAt(AT_FDCWD, name), [&] { return NEXT(mkdir)(name, mode); });
}

}  // extern "C"
