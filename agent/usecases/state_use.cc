#include "agent/usecases/state_use.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxRecordBytes = 1024;
constexpr std::chrono::milliseconds kPause{5};

struct Record {
  StateUse::User user;
  std::int64_t pid = 0;
};

std::string Member(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Read returns nothing where the record is not there or is none: a power cut may leave that.
std::optional<Record> Read(int file) {
  std::array<char, kMaxRecordBytes> text{};
  const ssize_t size = pread(file, text.data(), text.size(), 0);
  if (size <= 0) return std::nullopt;
  const auto json = nlohmann::json::parse(text.data(), text.data() + size, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  Record record{{Member(json, "boot"), Member(json, "machine"), Member(json, "host")}, 0};
  if (const auto pid = json.find("pid"); pid != json.end() && pid->is_number_integer()) {
    record.pid = pid->get<std::int64_t>();
  }
  if (record.user.boot.empty()) return std::nullopt;
  return record;
}

// Write need not be durable: after a power cut nobody works here. False where the record is not
// there whole.
bool Write(int file, const StateUse::User& user) {
  nlohmann::ordered_json json;
  json["boot"] = user.boot;
  json["host"] = user.host;
  json["machine"] = user.machine;
  json["pid"] = getpid();
  const std::string text =
      json.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  return ftruncate(file, 0) == 0 &&
         pwrite(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

enum class Lock { kHeld, kTaken, kNone };

Lock TryLock(int file, int kind) {
  while (flock(file, kind | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Lock::kTaken;
    if (errno != EINTR) return Lock::kNone;  // a file system without locks
  }
  return Lock::kHeld;
}

std::string Shown(const Record& record) {
  return fmt::format("process {} on the host {}", record.pid,
                     record.user.host.empty() ? "without a name" : record.user.host);
}

Error InUse(const std::string& state_dir, const std::optional<Record>& record) {
  return Error(ErrorCode::kStoreBusy, Action::kCheckSystemState,
               fmt::format("the state in {} is in use on another machine: {}", state_dir,
                           record ? Shown(*record) : "its process is not known"),
               "stop it there; a state belongs to one machine: give each its own with 'keyescrow "
               "init --state DIR', and 'trust add' the other's agent");
}

}  // namespace

StateUse::StateUse(StateUse&& other) noexcept
    : file_(std::exchange(other.file_, -1)), warning_(std::move(other.warning_)) {}

StateUse::~StateUse() {
  if (file_ >= 0) close(file_);
}

Result<StateUse> StateUse::Claim(const std::string& state_dir, const User& user,
                                 std::chrono::milliseconds patience) {
  const std::string path = state_dir + "/in-use";
  StateUse use(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  struct stat status {};
  if (use.file_ < 0 || user.boot.empty() || fstat(use.file_, &status) != 0 ||
      !S_ISREG(status.st_mode)) {
    return use;
  }
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (true) {
    std::optional<Record> last;
    const Lock shared = TryLock(use.file_, LOCK_SH);
    if (shared != Lock::kTaken) {
      last = Read(use.file_);
      if (last && last->user.boot == user.boot) return use;
      // A lock is not turned into another in one step: let go of it, and try to be alone.
      flock(use.file_, LOCK_UN);
      const Lock alone = TryLock(use.file_, LOCK_EX);
      if (alone != Lock::kTaken) {
        last = Read(use.file_);  // another command of this boot may have been first
        if (last && !last->user.machine.empty() && !user.machine.empty() &&
            last->user.machine != user.machine) {
          use.warning_ = fmt::format(
              "another machine used this state last ({}): two agents that share or copied one "
              "state write one log in two ways; use it on one machine alone",
              Shown(*last));
        }
        const bool is_ours = last && last->user.boot == user.boot;
        const bool recorded = is_ours || Write(use.file_, user);
        if (alone == Lock::kNone) return use;
        flock(use.file_, LOCK_UN);
        if (recorded) continue;
        // A full disk: nobody is told of this use, and nobody waits for it.
        TryLock(use.file_, LOCK_SH);
        return use;
      }
    }
    if (std::chrono::steady_clock::now() > deadline) return InUse(state_dir, last);
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace keyescrow::agent
