// What the fuzzers share: a cursor over the input, a check that names its line, and the limits that
// the replay holds each input to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace keyescrow::fuzz {

// Limits of one input, stated by each fuzzer: no input of up to max_len bytes may take more.
struct Limits {
  std::size_t max_len;     // bytes; run passes it to libFuzzer
  std::size_t memory_mib;  // address space beyond what the program had before the input
  unsigned cpu_s;          // processor time, generous: a loop without an end is what it finds
};
extern const Limits kLimits;

// Prepare does what need be done once a process, before any limit is set; may be empty.
void Prepare();

// VisitLargest feeds the replay with the largest inputs of their kind, too big for a corpus.
using Feed = void (*)(ByteView input);
void VisitLargest(Feed feed);

[[noreturn]] inline void Fail(const char* file, int line, const char* claim) {
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, claim);
  std::abort();
}
#define FUZZ_CHECK(claim) \
  ((claim) ? static_cast<void>(0) : ::keyescrow::fuzz::Fail(__FILE__, __LINE__, #claim))

// Input is a cursor that never fails: past the end there are zeros and empty texts.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
  explicit Input(ByteView bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  ByteView rest() const { return rest_; }
  std::uint8_t U8() {
    const ByteView byte = Take(1);
    return byte.empty() ? std::uint8_t{0} : byte[0];
  }
  std::uint16_t U16() {
    const int high = U8();
    return static_cast<std::uint16_t>(high << 8 | U8());
  }
  std::uint32_t U32() {
    const std::uint32_t high = U16();
    return high << 16 | U16();
  }
  std::uint64_t U64() {
    const std::uint64_t high = U32();
    return high << 32 | U32();
  }
  // Take returns the next `size` bytes, or the fewer that are left.
  ByteView Take(std::size_t size) {
    const ByteView taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  // Field is a 16-bit size and its bytes.
  ByteView Field() {
    const std::size_t size = U16();
    return Take(size);
  }
  // Line takes up to and without the next newline.
  std::string_view Line() {
    const std::string_view text = AsText(rest_);
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = AsText(Take(end));
    Take(1);
    return line;
  }

 private:
  ByteView rest_;
};

// CheckError holds what every error promises: a hint, and texts that a terminal can print.
inline void CheckError(const Error& error) {
  FUZZ_CHECK(!error.message().empty());
  FUZZ_CHECK(!error.hint().empty());
}

}  // namespace keyescrow::fuzz
