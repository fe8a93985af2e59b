#include "agent/usecases/keyed_sum.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace keyescrow::agent {
namespace {

// Rows are a key's name (at most 128 bytes; longer ones of a hostile store are cut for the hash and
// told apart by their length) and three numbers.
constexpr std::size_t kMaxTextBytes = 192;
constexpr std::size_t kNumbersBytes = 4 * sizeof(std::uint64_t);

std::uint64_t Load(const std::uint8_t* bytes) {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < 8; ++i) word |= std::uint64_t{bytes[i]} << (8 * i);
  return word;
}

struct SipState {
  std::uint64_t v0, v1, v2, v3;
  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void Absorb(std::uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

}  // namespace

Result<SipKey> SipKey::Generate(RandomSource& random) {
  Bytes16 bytes;
  RETURN_IF_ERROR(random.Fill(bytes));
  return SipKey{Load(bytes.data()), Load(bytes.data() + 8)};
}

std::uint64_t SipHash(const SipKey& key, ByteView bytes) {
  SipState state{key.low ^ 0x736f6d6570736575, key.high ^ 0x646f72616e646f6d,
                 key.low ^ 0x6c7967656e657261, key.high ^ 0x7465646279746573};
  const std::size_t whole = bytes.size() / 8 * 8;
  for (std::size_t i = 0; i < whole; i += 8) state.Absorb(Load(bytes.data() + i));
  std::uint64_t last = std::uint64_t{bytes.size() & 0xFF} << 56;
  for (std::size_t i = whole; i < bytes.size(); ++i) {
    last |= std::uint64_t{bytes[i]} << (8 * (i - whole));
  }
  state.Absorb(last);
  state.v2 ^= 0xFF;
  for (int i = 0; i < 4; ++i) state.Round();
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

std::uint64_t KeyedSum::RowHash(const SipKey& key, std::string_view text, std::uint64_t a,
                                std::uint64_t b, std::uint64_t c) {
  std::array<std::uint8_t, kMaxTextBytes + kNumbersBytes> row{};
  const std::array<std::uint64_t, 4> numbers = {text.size(), a, b, c};
  std::memcpy(row.data(), numbers.data(), kNumbersBytes);
  const std::size_t size = std::min(text.size(), kMaxTextBytes);
  if (size > 0) std::memcpy(row.data() + kNumbersBytes, text.data(), size);
  return SipHash(key, ByteView(row.data(), kNumbersBytes + size));
}

void KeyedSum::Add(std::string_view text, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  sum_ += RowHash(key_, text, a, b, c);
  ++num_rows_;
}

}  // namespace keyescrow::agent
