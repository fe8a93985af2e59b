#include "agent/key_locations/stream.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "agent/key_locations/key_location.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kFirstRoom = 4096;

}  // namespace

Error KeySizeError(const std::string& name, bool empty) {
  return Error(ErrorCode::kSourceSize, Action::kFixInput,
               name + (empty ? " is empty" : " is larger than 1 MiB"),
               "a protected key has 1 byte to 1 MiB: check that this is the key");
}

Result<SecretBytes> ReadKey(int fd, const std::string& name) {
  // The room grows by doubling: locked memory is scarce, and keys are small.
  ASSIGN_OR_RETURN(SecretBytes room, SecretBytes::Allocate(kFirstRoom));
  std::size_t size = 0;
  while (true) {
    if (size == room.size()) {
      const std::size_t larger_size = std::min(room.size() * 2, kMaxKeyBytes + 1);
      ASSIGN_OR_RETURN(SecretBytes larger, SecretBytes::Allocate(larger_size));
      std::memcpy(larger.ExposeMutable().data(), room.Expose().data(), size);
      room = std::move(larger);
    }
    const ssize_t count = read(fd, room.ExposeMutable().data() + size, room.size() - size);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(ErrorCode::kSourceUnreadable, Action::kCheckSystemState,
                        "cannot read " + name, "check that it is there and readable", errno);
    }
    if (count == 0) break;
    size += static_cast<std::size_t>(count);
    if (size > kMaxKeyBytes) return KeySizeError(name, false);
  }
  return SecretBytes::CopyOf(room.Expose().first(size));
}

ByteView FillPipe(int fd, ByteView bytes) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return bytes;
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  fcntl(fd, F_SETFL, flags);
  return bytes;
}

int WritePipe(int fd, ByteView bytes) {
  sigset_t pipe_signal, before;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  int result = 0;
  while (!bytes.empty() && result == 0) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno != EINTR) {
      result = errno;
    }
  }
  if (result == EPIPE && sigismember(&before, SIGPIPE) == 0) {
    constexpr timespec kAtOnce{0, 0};
    sigtimedwait(&pipe_signal, nullptr, &kAtOnce);  // the signal that write(2) left pending
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

}  // namespace keyescrow::agent
