#include "agent/store/evidence.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>

namespace keyescrow::agent::store {
namespace {

// A store that keyescrow wrote takes less than a step a byte to be read several times.
constexpr int kStepsAtATime = 10'000;
constexpr std::uint64_t kLeastSteps = 1U << 21;
constexpr std::uint64_t kStepsPerByte = 4;
constexpr int kMaxRowBytes = 32 << 20;  // the largest that is written is a blocklist of 8 MiB

std::uint64_t HeldBytesOf(const std::string& path) {
  constexpr std::uint64_t kBlock = 512;
  constexpr std::uint64_t kPacked = 16;
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return 0;
  const auto size = static_cast<std::uint64_t>(info.st_size);
  const auto blocks = static_cast<std::uint64_t>(info.st_blocks);
  return blocks == 0 ? size : std::min(size, blocks * kBlock * kPacked);  // 0: it does not say
}

int TakeSteps(void* left) {
  auto& steps = *static_cast<std::uint64_t*>(left);
  steps -= std::min<std::uint64_t>(steps, kStepsAtATime);
  return steps == 0 ? 1 : 0;
}

}  // namespace

Status CheckBesideEvidence(const std::string& store_path) {
  for (const char* suffix : {"-wal", "-shm", "-journal"}) {
    const std::string beside = store_path + suffix;
    struct stat info {};
    if (stat(beside.c_str(), &info) != 0 || S_ISREG(info.st_mode)) continue;
    return Error(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                 fmt::format("{} is not a regular file", beside),
                 "put the file itself into the state folder");
  }
  return Ok();
}

std::uint64_t HeldBytes(const std::string& store_path) {
  return HeldBytesOf(store_path) + HeldBytesOf(store_path + "-wal");
}

void WorkLimit::Set(sqlite3* connection, std::uint64_t held_bytes) {
  steps_left_ = kLeastSteps + held_bytes * kStepsPerByte;
  sqlite3_progress_handler(connection, kStepsAtATime, TakeSteps, &steps_left_);
  sqlite3_limit(connection, SQLITE_LIMIT_LENGTH, kMaxRowBytes);
}

}  // namespace keyescrow::agent::store
