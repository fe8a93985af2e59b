// Files that are whole at every instant: written under a temporary name in the same folder, synced,
// renamed, and the folder synced. After a power cut the name holds the old bytes or the new ones.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct DurableWriteOptions {
  mode_t mode = 0644;      // of a new file; an existing one keeps owner, mode and access list
  bool exclusive = false;  // fail with kAlreadyExists if the name is taken
  // Asked while no other writer of ours is in the folder; its error is the write's. None: always.
  std::function<Status()> may_write = {};
};

// WriteFileDurably makes `path` hold `bytes` and returns once they survive a power cut. A symbolic
// link at `path` is refused, never followed; links in the folders before it are.
// Errors: kAlreadyExists (exclusive); kDestinationUnwritable, kDestinationFull,
// kDestinationIsFolder, kDestinationIsSymlink, kDestinationNotRegular. On error `path` is as it
// was, and no temporary file is left; only when syncing the folder fails are the new bytes there
// without the promise that they stay.
Status WriteFileDurably(const std::string& path, ByteView bytes,
                        const DurableWriteOptions& options);

// CheckDocumentPlace: nothing stands at `path`, or an empty file, or a document that keyescrow
// wrote earlier: one of `marks` is among its first 4 KiB. Whatever else is there may be the only
// copy of a key, and no document takes its place. What cannot be looked at is left to the writer's
// errors. Errors: kDestinationOtherKey.
Status CheckDocumentPlace(const std::string& path, std::string_view what,
                          std::initializer_list<std::string_view> marks);

// DocumentPlaceTaken is its error: "PATH holds something else than WHAT".
Error DocumentPlaceTaken(const std::string& path, std::string_view what);

// WritePairDurably is WriteFileDurably for `path` and for `path + suffix`, which tells of it: new
// bytes never stand beside an old companion. A kill or a power cut in between may leave none.
// Errors: as WriteFileDurably; both are as they were, but where a rename or a sync of the folder
// failed.
Status WritePairDurably(const std::string& path, ByteView bytes, const std::string& suffix,
                        ByteView companion_bytes, const DurableWriteOptions& options);

// LeftBeside returns the files that writes of `path` which were killed left there: what they had
// written. The next write to that name removes them.
std::vector<std::string> LeftBeside(const std::string& path);

// FileReplacement: the steps of WriteFileDurably one by one, for those who must do something in
// between. It holds a lock (flock) on the folder from Open to its end, so that writers take turns
// and a temporary file found there is a dead writer's. Everybody who may read the folder can keep
// that lock, so after 10 s it goes on without: its temporary file then has another name and a lock
// of its own, and Publish(kReplace) replaces nothing but what Inspect saw. Unless Publish
// succeeded, the destructor removes the temporary file. Order: Open, Inspect, Stage, CopyAccess or
// SetMode, Publish.
class FileReplacement {
 public:
  // Open opens and locks the folder of `path`, waiting up to 10 s for other writers, and no more.
  // Errors: kDestinationUnwritable (naming the folder), kDestinationIsFolder (path ends in "/").
  static Result<FileReplacement> Open(const std::string& path);
  FileReplacement(FileReplacement&& other) noexcept;
  FileReplacement& operator=(FileReplacement&&) = delete;
  ~FileReplacement();

  // Beside is the replacement of path + suffix under the same lock.
  Result<FileReplacement> Beside(const std::string& suffix) const;

  // Inspect looks at the name itself, without following a link: true if a regular file is there
  // (`found` is then filled), false if nothing is.
  // Errors: kDestinationIsFolder, kDestinationIsSymlink, kDestinationNotRegular.
  Result<bool> Inspect(struct stat* found) const;

  // RemoveExisting removes what stands at the name, durably. Errors: kDestinationUnwritable.
  Status RemoveExisting() const;

  // OpenExisting opens the regular file for reading, no link followed; the caller closes it.
  // Errors: kDestinationUnwritable: what cannot be compared is not replaced.
  Result<int> OpenExisting() const;

  // Stage writes `bytes` into a new temporary file (O_EXCL, mode 0600 whatever the umask).
  // Errors: kDestinationUnwritable, kDestinationFull.
  Status Stage(ByteView bytes);

  // StageMore adds to what was staged: for what is not in memory as a whole. Errors: as Stage.
  Status StageMore(ByteView bytes);

  // Sync makes what was staged durable, once; before a step that must not happen without it.
  Status Sync();

  // CopyAccess gives the staged file the owner, mode and POSIX access list of `existing_fd`: with
  // the mode alone, a list's mask would become the group's rights. Errors: kDestinationUnwritable.
  Status CopyAccess(int existing_fd);
  Status SetMode(mode_t mode);

  enum class Existing { kReplace, kKeep };
  // Publish syncs the staged file, renames it to the name and syncs the folder. kKeep:
  // kAlreadyExists if the name was taken meanwhile. kReplace without the lock:
  // kDestinationOtherKey, and nothing replaced, where another program wrote there after Inspect;
  // kDestinationUnwritable where the file system cannot exchange two names.
  Status Publish(Existing existing);

  // SyncExisting makes sure that what already stands there, open as `existing_fd`, is durable.
  Status SyncExisting(int existing_fd) const;

  const std::string& path() const { return path_; }

 private:
  FileReplacement(std::string path, std::string folder, std::string name, int folder_fd);
  Error SystemError(const char* step, int error_number) const;
  Status MakeLocked();
  Status MakeUnlocked();
  Status Exchange(const struct stat& staged);

  std::string path_;
  std::string folder_;
  std::string name_;
  std::string temporary_;  // name inside the folder; "": none
  int folder_fd_ = -1;
  int fd_ = -1;
  bool locked_ = false;
  bool synced_ = false;
  mutable std::optional<struct stat> seen_;  // by Inspect
};

// AppendLineDurably adds `line` and a line feed to an existing file and returns once they survive a
// power cut; a cut in between may leave a last line without its line feed.
// Errors: kDestinationUnwritable, kDestinationFull.
Status AppendLineDurably(const std::string& path, std::string_view line);

}  // namespace keyescrow::agent
