// SecretBytes: the only container for key material, passwords, PINs and what is derived from them.
//
// Memory: locked (mlock), left out of core dumps (MADV_DONTDUMP), zero in a forked child
// (MADV_WIPEONFORK), between inaccessible guard pages, wiped on destruction. Move-only; sized once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow {

class SecretBytes {
 public:
  SecretBytes() = default;  // empty
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes();

  // Allocate returns `size_bytes` zero bytes. Thread-safe.
  // Errors: kMemoryLockLimit when RLIMIT_MEMLOCK is too low; kOutOfMemory.
  static Result<SecretBytes> Allocate(std::size_t size_bytes);

  // CopyOf returns a copy of `bytes`; the caller wipes its own. Errors: as Allocate.
  static Result<SecretBytes> CopyOf(ByteView bytes);

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Expose and ExposeMutable give the bytes themselves. A lint test counts their uses per file
  // (tests/lint/expose_counts.txt), so that every touch of a secret is seen in review.
  ByteView Expose() const { return {data_, size_}; }
  std::span<std::uint8_t> ExposeMutable() { return {data_, size_}; }

  // Truncate shortens to `size_bytes` (at most size()) and wipes the rest.
  void Truncate(std::size_t size_bytes);

  // EqualsConstantTime compares in time that depends on the sizes alone.
  bool EqualsConstantTime(const SecretBytes& other) const;
  bool operator==(const SecretBytes&) const = delete;

 private:
  SecretBytes(std::uint8_t* data, std::size_t size) : data_(data), size_(size), capacity_(size) {}
  void Release() noexcept;

  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// Concatenate returns the parts one after the other. Errors: as SecretBytes::Allocate.
Result<SecretBytes> Concatenate(std::span<const SecretBytes* const> parts);

// Cleanse wipes memory that a library filled with a secret (OPENSSL_cleanse: not optimised away).
void Cleanse(void* memory, std::size_t size_bytes);

// HardenProcess turns core dumps and ptrace by the same user off (PR_SET_DUMPABLE 0, RLIMIT_CORE
// 0).
void HardenProcess();

}  // namespace keyescrow
