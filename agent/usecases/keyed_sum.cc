#include "agent/usecases/keyed_sum.h"

#include <bit>
#include <cstring>

namespace keyescrow::agent {
namespace {

// Rows are a key's name (at most 128 bytes; longer ones of a hostile store are cut for the hash and
// told apart by their length) and three numbers.
constexpr std::size_t kMaxTextBytes = 192;

std::uint64_t Load(const std::uint8_t* bytes) {
  std::uint64_t word = 0;
  if constexpr (std::endian::native == std::endian::little) {
    std::memcpy(&word, bytes, sizeof word);
  } else {
    for (unsigned i = 0; i < 8; ++i) word |= std::uint64_t{bytes[i]} << (8 * i);
  }
  return word;
}

struct SipState {
  explicit SipState(const SipKey& key)
      : v0(key.low ^ 0x736f6d6570736575),
        v1(key.high ^ 0x646f72616e646f6d),
        v2(key.low ^ 0x6c7967656e657261),
        v3(key.high ^ 0x7465646279746573) {}

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
  // Finish absorbs the last bytes, of `num_bytes` in all, and returns the hash.
  std::uint64_t Finish(ByteView bytes, std::size_t num_bytes) {
    const std::size_t whole = bytes.size() / 8 * 8;
    for (std::size_t i = 0; i < whole; i += 8) Absorb(Load(bytes.data() + i));
    std::uint64_t last = std::uint64_t{num_bytes & 0xFF} << 56;
    for (std::size_t i = whole; i < bytes.size(); ++i) {
      last |= std::uint64_t{bytes[i]} << (8 * (i - whole));
    }
    Absorb(last);
    v2 ^= 0xFF;
    for (int i = 0; i < 4; ++i) Round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

}  // namespace

Result<SipKey> SipKey::Generate(RandomSource& random) {
  Bytes16 bytes;
  RETURN_IF_ERROR(random.Fill(bytes));
  return SipKey{Load(bytes.data()), Load(bytes.data() + 8)};
}

std::uint64_t SipHash(const SipKey& key, ByteView bytes) {
  return SipState(key).Finish(bytes, bytes.size());
}

std::uint64_t KeyedSum::RowHash(const SipKey& key, std::string_view text, std::uint64_t a,
                                std::uint64_t b, std::uint64_t c) {
  SipState state(key);
  for (const std::uint64_t number : {std::uint64_t{text.size()}, a, b, c}) state.Absorb(number);
  const ByteView name = AsBytes(text.substr(0, kMaxTextBytes));
  return state.Finish(name, 4 * sizeof(std::uint64_t) + name.size());
}

void KeyedSum::Add(std::string_view text, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  sum_ += RowHash(key_, text, a, b, c);
  ++num_rows_;
}

}  // namespace keyescrow::agent
