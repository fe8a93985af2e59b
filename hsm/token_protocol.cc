#include "hsm/token_protocol.h"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

namespace keyescrow::hsm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kLookingTime{10};

bool HasProcessorsToSpare() {
  cpu_set_t set;
  static const bool spare = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
  return spare;
}

bool IsReadable(int socket_fd, int timeout_ms) {
  pollfd entry{socket_fd, POLLIN, 0};
  return poll(&entry, 1, timeout_ms) > 0;
}

}  // namespace

int RemainingMs(steady_clock::time_point end) {
  const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now()).count();
  return left > 0 ? static_cast<int>(std::min<std::int64_t>(left, INT_MAX)) : 0;
}

bool AwaitMessage(int socket_fd, milliseconds deadline) {
  const auto start = steady_clock::now();
  const auto looking_end = start + std::min(deadline, kLookingTime);
  while (HasProcessorsToSpare() && steady_clock::now() < looking_end) {
    if (IsReadable(socket_fd, 0)) return true;
    sched_yield();
  }
  const auto end = start + deadline;
  do {
    if (IsReadable(socket_fd, RemainingMs(end))) return true;
  } while (RemainingMs(end) > 0);  // a signal cut the wait short
  return false;
}

void MessageWriter::PutU16(std::uint16_t value) {
  PutU8(static_cast<std::uint8_t>(value >> 8));
  PutU8(static_cast<std::uint8_t>(value & 0xff));
}

void MessageWriter::PutU32(std::uint32_t value) {
  PutU16(static_cast<std::uint16_t>(value >> 16));
  PutU16(static_cast<std::uint16_t>(value & 0xffff));
}

void MessageWriter::PutU64(std::uint64_t value) {
  PutU32(static_cast<std::uint32_t>(value >> 32));
  PutU32(static_cast<std::uint32_t>(value & 0xffffffff));
}

void MessageWriter::PutField(ByteView bytes) {
  bytes = bytes.first(std::min<std::size_t>(bytes.size(), 0xffff));
  PutU16(static_cast<std::uint16_t>(bytes.size()));
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::optional<std::uint64_t> TakeU64(ByteReader& reader) {
  const auto bytes = reader.Take(8);
  if (!bytes) return std::nullopt;
  std::uint64_t value = 0;
  for (const std::uint8_t byte : *bytes) value = value << 8 | byte;
  return value;
}

std::optional<ByteView> TakeField(ByteReader& reader, std::size_t max_size_bytes) {
  const auto size = reader.TakeU16();
  if (!size || *size > max_size_bytes) return std::nullopt;
  return reader.Take(*size);
}

bool SendMessage(int socket_fd, ByteView head, const SecretBytes* secret) {
  std::array<std::uint8_t, 2> size{};
  std::array<iovec, 3> parts{};
  parts[0] = {const_cast<std::uint8_t*>(head.data()), head.size()};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = 1;
  std::size_t total = head.size();
  if (secret != nullptr) {
    if (secret->size() > 0xffff) return false;
    size = {static_cast<std::uint8_t>(secret->size() >> 8),
            static_cast<std::uint8_t>(secret->size() & 0xff)};
    parts[1] = {size.data(), size.size()};
    parts[2] = {const_cast<std::uint8_t*>(secret->Expose().data()), secret->size()};
    message.msg_iovlen = 3;
    total += size.size() + secret->size();
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(total);
}

}  // namespace keyescrow::hsm
