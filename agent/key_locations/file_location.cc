#include "agent/key_locations/file_location.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/stream.h"

namespace keyescrow::agent {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

bool SameFile(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino &&
         left.st_size == right.st_size && left.st_mtim.tv_sec == right.st_mtim.tv_sec &&
         left.st_mtim.tv_nsec == right.st_mtim.tv_nsec;
}

Error OtherKey(std::string message, std::string hint) {
  return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput, std::move(message),
               std::move(hint));
}

Error ChangedMeanwhile(const std::string& path) {
  return OtherKey(path + " was written by another program in this moment",
                  "nothing was replaced: look what writes there, then run the command again");
}

// ReadWhole reads a key. A regular file must be at the end what it was before, in `status`: one
// that is being written in place would be escrowed by halves.
Result<SecretBytes> ReadWhole(int fd, const std::string& path, const struct stat& status) {
  ASSIGN_OR_RETURN(SecretBytes key, ReadKey(fd, path));
  struct stat now {};
  if (S_ISREG(status.st_mode) && (fstat(fd, &now) != 0 || !SameFile(status, now))) {
    return Error(ErrorCode::kSourceUnreadable, Action::kRetry,
                 path + " was written by another program while it was read",
                 "look what writes there, then run the command again");
  }
  if (key.empty()) return KeySizeError(path, true);
  return key;
}

// ReadPresent reads what stands at the destination; more than a key can have is somebody's data.
Result<SecretBytes> ReadPresent(int fd, const std::string& path) {
  auto present = ReadKey(fd, path);
  if (present) return present;
  if (present.error().code() == ErrorCode::kSourceSize) {
    return OtherKey(path + " holds more than 1 MiB: it is not a key",
                    "choose another destination, or move the file away");
  }
  return present;
}

// KeepPrevious makes sure that the old key stands at PATH.keyescrow-previous. The old key gets a
// copy, not a link: a link would keep the old owner and mode. What stands there already gives way
// where it is `new_key`, which takes its place again: a hand-over is taken back.
Result<std::string> KeepPrevious(const FileReplacement& target, const SecretBytes& old_key,
                                 const SecretBytes& new_key) {
  ASSIGN_OR_RETURN(FileReplacement previous, target.Beside(kPreviousSuffix));
  struct stat found {};
  ASSIGN_OR_RETURN(const bool exists, previous.Inspect(&found));
  if (!exists) {
    RETURN_IF_ERROR(previous.Stage(old_key.Expose()));
    RETURN_IF_ERROR(previous.Publish(FileReplacement::Existing::kKeep));
    return previous.path();
  }
  ASSIGN_OR_RETURN(const int fd, previous.OpenExisting());
  const Descriptor existing(fd);
  ASSIGN_OR_RETURN(SecretBytes kept, ReadPresent(existing.get(), previous.path()));
  if (kept.EqualsConstantTime(new_key)) {
    RETURN_IF_ERROR(previous.Stage(old_key.Expose()));
    RETURN_IF_ERROR(previous.Publish(FileReplacement::Existing::kReplace));
    return previous.path();
  }
  if (!kept.EqualsConstantTime(old_key)) {
    return OtherKey(previous.path() + " still holds a key that was put aside earlier",
                    "when it is needed no more, remove it with 'restore --discard-previous'; then "
                    "run this again");
  }
  // Who put it there may have been killed before it was durable, or not have synced it.
  RETURN_IF_ERROR(previous.SyncExisting(existing.get()));
  return previous.path();
}

// HoldSignals puts off what would end the process (Ctrl-C, a closed terminal, a service's stop)
// while a copy of the key stands under a temporary name, which nobody would remove.
class HoldSignals {
 public:
  HoldSignals() {
    sigset_t held;
    sigemptyset(&held);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&held, number);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  HoldSignals(const HoldSignals&) = delete;
  HoldSignals& operator=(const HoldSignals&) = delete;
  ~HoldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

KeyFileAccess AccessOf(const struct stat& status) {
  return {status.st_uid, status.st_gid, status.st_mode & 07777};
}

class FileLocation final : public KeyLocation {
 public:
  explicit FileLocation(std::string path) : path_(std::move(path)) {}

  Result<SecretBytes> Read() override {
    const Descriptor source(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (source.get() < 0) {
      return ErrnoError(ErrorCode::kSourceUnreadable, Action::kFixInput, "cannot read " + path_,
                        "check that the file is there and that this user may read it", errno);
    }
    struct stat status {};
    if (fstat(source.get(), &status) != 0 || !S_ISREG(status.st_mode)) status = {};
    return ReadWhole(source.get(), path_, status);
  }

  Status CheckWritable() override {
    const HoldSignals hold;
    ASSIGN_OR_RETURN(FileReplacement target, FileReplacement::Open(path_));
    struct stat found {};
    ASSIGN_OR_RETURN(const bool exists, target.Inspect(&found));
    RETURN_IF_ERROR(target.Stage(Bytes(4096)));
    if (!exists) return Ok();
    ASSIGN_OR_RETURN(const int fd, target.OpenExisting());
    const Descriptor existing(fd);
    return target.CopyAccess(existing.get());
  }

  Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions& options) override {
    const HoldSignals hold;
    ASSIGN_OR_RETURN(FileReplacement target, FileReplacement::Open(path_));
    struct stat found {};
    ASSIGN_OR_RETURN(const bool exists, target.Inspect(&found));
    if (!exists) return WriteNew(target, key);

    ASSIGN_OR_RETURN(const int fd, target.OpenExisting());
    const Descriptor existing(fd);
    ASSIGN_OR_RETURN(SecretBytes present, ReadPresent(existing.get(), path_));
    if (present.EqualsConstantTime(key)) {
      RETURN_IF_ERROR(target.SyncExisting(existing.get()));
      return WriteOutcome{.already_same = true};
    }
    if (!present.empty() && !options.replace) {
      return OtherKey(path_ + " holds another key",
                      "restore to another place, or give --replace: the old key is then kept at " +
                          path_ + kPreviousSuffix);
    }
    WriteOutcome outcome{.written = true};
    RETURN_IF_ERROR(target.Stage(key.Expose()));
    RETURN_IF_ERROR(target.CopyAccess(existing.get()));
    // A full disk is found before the old key is put aside; and after the second look at what is
    // there, the new file takes its place at once.
    RETURN_IF_ERROR(target.Sync());
    if (!present.empty()) {
      ASSIGN_OR_RETURN(outcome.previous_path, KeepPrevious(target, present, key));
    }
    struct stat now {};
    ASSIGN_OR_RETURN(const bool still_there, target.Inspect(&now));
    if (!still_there || !SameFile(found, now)) return ChangedMeanwhile(path_);
    RETURN_IF_ERROR(target.Publish(FileReplacement::Existing::kReplace));
    return outcome;
  }

  std::string Describe() const override { return "file:" + path_; }
  std::string FilePath() const override { return path_; }

 private:
  Result<WriteOutcome> WriteNew(FileReplacement& target, const SecretBytes& key) const {
    RETURN_IF_ERROR(target.Stage(key.Expose()));
    auto published = target.Publish(FileReplacement::Existing::kKeep);
    if (published) return WriteOutcome{.written = true};
    if (published.error().code() == ErrorCode::kAlreadyExists) return ChangedMeanwhile(path_);
    return std::move(published).error();
  }

  std::string path_;
};

}  // namespace

std::unique_ptr<KeyLocation> MakeFileLocation(std::string path) {
  return std::make_unique<FileLocation>(std::move(path));
}

std::optional<KeyFileAccess> StatKeyFile(const std::string& path) {
  struct stat status {};
  if (path.empty() || stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return std::nullopt;
  }
  return AccessOf(status);
}

Result<KeyFile> ReadKeyFile(const std::string& path) {
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  const Descriptor source(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (source.get() < 0) {
    const bool absent = errno == ENOENT || errno == ENOTDIR;
    return ErrnoError(absent ? ErrorCode::kNotFound : ErrorCode::kSourceUnreadable,
                      Action::kFixInput, "cannot read " + path,
                      "check that the file is there and that this user may read it", errno);
  }
  struct stat status {};
  if (fstat(source.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return Error(ErrorCode::kSourceUnreadable, Action::kFixInput, path + " is no regular file",
                 "keep the key in a regular file");
  }
  ASSIGN_OR_RETURN(SecretBytes key, ReadWhole(source.get(), path, status));
  return KeyFile{std::move(key), AccessOf(status)};
}

}  // namespace keyescrow::agent
