// StackAfter and HoldsPart: whether a function leaves a secret on its stack.
#pragma once

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "envelope/base/bytes.h"

namespace keyescrow {

// BelowItsCaller runs a body with some room between its frames and those of its caller.
template <typename Body>
[[gnu::noinline]] void* BelowItsCaller(void* body) {
  std::uint8_t room[16 << 10];
  asm volatile("" : : "r"(room) : "memory");
  (*static_cast<Body*>(body))();
  asm volatile("" : : "r"(room) : "memory");
  return nullptr;
}

// StackAfter runs `body` on a thread whose stack is the test's own, and returns that stack as it is
// when the thread has ended; nothing that ends a thread reaches down to the body's frames.
template <typename Body>
std::vector<std::uint8_t> StackAfter(Body body) {
  constexpr std::size_t kSize = 512 << 10;
  void* const stack =
      mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) return {};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kSize);
  pthread_t thread{};
  const bool ran = pthread_create(&thread, &attributes, &BelowItsCaller<Body>, &body) == 0 &&
                   pthread_join(thread, nullptr) == 0;
  pthread_attr_destroy(&attributes);
  std::vector<std::uint8_t> bytes;
  if (ran) {
    const auto* const begin = static_cast<const std::uint8_t*>(stack);
    bytes.assign(begin, begin + kSize);
  }
  munmap(stack, kSize);
  return bytes;
}

// HoldsPart tells whether eight bytes in a row of the secret stand anywhere.
inline bool HoldsPart(const std::vector<std::uint8_t>& memory, ByteView secret) {
  constexpr std::size_t kPart = 8;
  for (std::size_t at = 0; at + kPart <= secret.size(); ++at) {
    if (memmem(memory.data(), memory.size(), secret.data() + at, kPart) != nullptr) return true;
  }
  return false;
}

// LeaveOnStack does what must not be done.
inline void LeaveOnStack(ByteView secret) {
  std::uint8_t copy[64] = {};
  memcpy(copy, secret.data(), secret.size() < sizeof copy ? secret.size() : sizeof copy);
  asm volatile("" : : "r"(copy) : "memory");
}

}  // namespace keyescrow
