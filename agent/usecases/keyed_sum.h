// KeyedSum: whether two sets of rows are the same, in eight bytes and in any order of reading. Each
// row is hashed under a key that nobody else knows (SipHash-2-4) and added up; rows that were
// prepared to cancel out would need that key.
#pragma once

#include <cstdint>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"

namespace keyescrow::agent {

struct SipKey {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  // Errors: kEntropyUnavailable.
  static Result<SipKey> Generate(RandomSource& random);
};

// SipHash returns SipHash-2-4 of the bytes. Source: Aumasson and Bernstein, 2012.
std::uint64_t SipHash(const SipKey& key, ByteView bytes);

class KeyedSum {
 public:
  explicit KeyedSum(const SipKey& key) : key_(key) {}
  // Add adds a row: a text and up to three numbers.
  void Add(std::string_view text, std::uint64_t a, std::uint64_t b = 0, std::uint64_t c = 0);
  void Add(const KeyedSum& other) {
    sum_ += other.sum_;
    num_rows_ += other.num_rows_;
  }
  bool operator==(const KeyedSum& other) const {
    return sum_ == other.sum_ && num_rows_ == other.num_rows_;
  }
  std::uint64_t num_rows() const { return num_rows_; }

  // RowHash is what Add adds.
  static std::uint64_t RowHash(const SipKey& key, std::string_view text, std::uint64_t a,
                               std::uint64_t b, std::uint64_t c);

 private:
  SipKey key_;
  std::uint64_t sum_ = 0;
  std::uint64_t num_rows_ = 0;
};

}  // namespace keyescrow::agent
