#include "envelope/base/secret_bytes.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

namespace keyescrow {
namespace {

// The arena keeps freed slots by size class; a class's slots fill one locked page at a time, so a
// restore's thirty secrets cost a handful of pages of RLIMIT_MEMLOCK and few system calls.
constexpr std::size_t kPage = 4096;
constexpr std::size_t kClasses[] = {64, 256, 1024, 4096};
constexpr std::size_t kNumClasses = 4;

struct FreeSlot {
  FreeSlot* next;
};

std::mutex arena_mutex;
FreeSlot* free_slots[kNumClasses] = {};

std::size_t ClassOf(std::size_t size) {
  for (std::size_t index = 0; index < kNumClasses; ++index) {
    if (size <= kClasses[index]) return index;
  }
  return kNumClasses;
}

std::size_t RoundUpToPage(std::size_t size) { return (size + kPage - 1) / kPage * kPage; }

Error LockError(std::size_t size, int error_number) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  return Error(
             ErrorCode::kMemoryLockLimit, Action::kCheckSystemState,
             "cannot lock " + std::to_string(size) +
                 " bytes of memory for a secret: the limit on locked memory (RLIMIT_MEMLOCK) is " +
                 std::to_string(limit.rlim_cur) + " bytes",
             "raise it for this shell with 'ulimit -l 8192', or set LimitMEMLOCK=8M in the "
             "service's unit")
      .WithNative("errno", static_cast<std::uint64_t>(error_number));
}

// MapLocked returns `size` (whole pages) locked bytes between two guard pages.
Result<std::uint8_t*> MapLocked(std::size_t size) {
  void* base = mmap(nullptr, size + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    return ErrnoError(ErrorCode::kOutOfMemory, Action::kCheckSystemState,
                      "cannot map memory for a secret", "free some memory and try again", errno);
  }
  auto* data = static_cast<std::uint8_t*>(base) + kPage;
  if (mprotect(data, size, PROT_READ | PROT_WRITE) != 0 || mlock(data, size) != 0) {
    const int error_number = errno;
    munmap(base, size + 2 * kPage);
    return LockError(size, error_number);
  }
  madvise(data, size, MADV_DONTDUMP);
  madvise(data, size, MADV_WIPEONFORK);
  return data;
}

void UnmapLocked(std::uint8_t* data, std::size_t size) { munmap(data - kPage, size + 2 * kPage); }

}  // namespace

Result<SecretBytes> SecretBytes::Allocate(std::size_t size_bytes) {
  if (size_bytes == 0) return SecretBytes();
  const std::size_t index = ClassOf(size_bytes);
  if (index == kNumClasses) {
    ASSIGN_OR_RETURN(std::uint8_t * data, MapLocked(RoundUpToPage(size_bytes)));
    return SecretBytes(data, size_bytes);
  }
  const std::lock_guard lock(arena_mutex);
  if (free_slots[index] == nullptr) {
    ASSIGN_OR_RETURN(std::uint8_t * page, MapLocked(kPage));
    for (std::size_t offset = 0; offset < kPage; offset += kClasses[index]) {
      auto* slot = reinterpret_cast<FreeSlot*>(page + offset);
      slot->next = free_slots[index];
      free_slots[index] = slot;
    }
  }
  FreeSlot* slot = free_slots[index];
  free_slots[index] = slot->next;
  auto* data = reinterpret_cast<std::uint8_t*>(slot);
  std::memset(data, 0, kClasses[index]);
  return SecretBytes(data, size_bytes);
}

Result<SecretBytes> SecretBytes::CopyOf(ByteView bytes) {
  ASSIGN_OR_RETURN(SecretBytes copy, Allocate(bytes.size()));
  if (!bytes.empty()) std::memcpy(copy.data_, bytes.data(), bytes.size());
  return copy;
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this != &other) {
    Release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

SecretBytes::~SecretBytes() { Release(); }

void SecretBytes::Release() noexcept {
  if (data_ == nullptr) return;
  OPENSSL_cleanse(data_, capacity_);
  const std::size_t index = ClassOf(capacity_);
  if (index == kNumClasses) {
    UnmapLocked(data_, RoundUpToPage(capacity_));
  } else {
    const std::lock_guard lock(arena_mutex);
    auto* slot = reinterpret_cast<FreeSlot*>(data_);
    slot->next = free_slots[index];
    free_slots[index] = slot;
  }
  data_ = nullptr;
  size_ = capacity_ = 0;
}

void SecretBytes::Truncate(std::size_t size_bytes) {
  if (size_bytes >= size_) return;
  OPENSSL_cleanse(data_ + size_bytes, size_ - size_bytes);
  size_ = size_bytes;
}

bool SecretBytes::EqualsConstantTime(const SecretBytes& other) const {
  if (size_ != other.size_) return false;
  if (size_ == 0) return true;
  // The outcome alone: no && or ||, of which some compilers make a jump on it.
  return CRYPTO_memcmp(data_, other.data_, size_) == 0;
}

Result<SecretBytes> Concatenate(std::span<const SecretBytes* const> parts) {
  std::size_t size = 0;
  for (const SecretBytes* part : parts) size += part->size();
  ASSIGN_OR_RETURN(SecretBytes whole, SecretBytes::Allocate(size));
  std::size_t offset = 0;
  for (const SecretBytes* part : parts) {
    if (part->empty()) continue;
    std::memcpy(whole.ExposeMutable().data() + offset, part->Expose().data(), part->size());
    offset += part->size();
  }
  return whole;
}

void Cleanse(void* memory, std::size_t size_bytes) { OPENSSL_cleanse(memory, size_bytes); }

void HardenProcess() {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
}

}  // namespace keyescrow
