// Receipts, the two verifiers of RFC 9162, and trees loaded from tiles of which nothing is true.
#include "agent/audit/merkle.h"
#include "agent/audit/proof.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 16384, .memory_mib = 32, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  const std::string header =
      "\x01"
      "c2sp.org/tlog-proof@v1\n";
  feed(AsBytes(header + "extra " + std::string(3 << 20, 'A')));
  std::string lines = header + "index 1\n";
  while (lines.size() < 128 << 10) lines += std::string(43, 'A') + "=\n";
  feed(AsBytes(lines));
  for (std::uint8_t kind = 2; kind < 6; ++kind) {
    Bytes input(256 << 10, 0xff);
    input[0] = kind;
    feed(input);
  }
}

namespace {

using namespace agent::audit;

Bytes32 TakeHash(Input& input) {
  Bytes32 hash{};
  const ByteView bytes = input.Take(32);
  std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

std::vector<Bytes32> TakeHashes(Input& input) {
  std::vector<Bytes32> hashes;
  while (!input.empty() && hashes.size() < 80) hashes.push_back(TakeHash(input));
  return hashes;
}

void Receipt(ByteView bytes) {
  const std::string_view text = AsText(bytes);
  const auto proof = ParseTlogProof(text);
  if (!proof) return CheckError(proof.error());
  FUZZ_CHECK(proof->hashes.size() <= 64);
  FUZZ_CHECK(FormatTlogProof(*proof) == text);
  const auto verified =
      VerifyTlogProof(*proof, proof->extra, "", {NoteKey::Ed25519("log", Bytes32{1})});
  FUZZ_CHECK(!verified);
  CheckError(verified.error());
}

// A small tree is built from the input, and every proof of it is verified, then spoilt.
void HonestTree(Input& input) {
  CompactRange range;
  std::vector<Bytes32> leaves;
  const std::size_t size = 1U + input.U8() % 40U;
  const std::uint64_t index = input.U8() % size;
  const std::uint64_t old_size = input.U8() % (size + 1);
  const std::uint8_t spoil = input.U8();
  Bytes tile;
  Bytes32 old_root = range.Root();
  for (std::size_t i = 0; i < size; ++i) {
    leaves.push_back(LeafHash(input.Take(3)));
    range.Append(leaves.back());
    tile.insert(tile.end(), leaves.back().begin(), leaves.back().end());
    if (range.size() == old_size) old_root = range.Root();
  }
  const TileReader read = [&](unsigned level, std::uint64_t number) -> Result<Bytes> {
    return level == 0 && number == 0 ? tile : Bytes();
  };
  const Bytes32 root = range.Root();
  FUZZ_CHECK(TreeRoot(size, read) == root);
  auto inclusion = InclusionProof(index, size, read);
  FUZZ_CHECK(inclusion && VerifyInclusion(leaves[index], index, size, *inclusion, root));
  auto consistency = ConsistencyProof(old_size, size, read);
  FUZZ_CHECK(consistency && VerifyConsistency(old_size, old_root, size, root, *consistency));
  if (!inclusion->empty()) {
    (*inclusion)[spoil % inclusion->size()][spoil % 32U] ^= 1;
    FUZZ_CHECK(!VerifyInclusion(leaves[index], index, size, *inclusion, root));
  }
  if (!consistency->empty()) {
    (*consistency)[spoil % consistency->size()][spoil % 32U] ^= 1;
    FUZZ_CHECK(!VerifyConsistency(old_size, old_root, size, root, *consistency));
  }
}

void HostileTiles(Input& input) {
  const std::uint64_t size = input.U64() >> (input.U8() % 64U);
  const std::uint64_t other = input.U64() >> (input.U8() % 64U);
  int num_reads = 0;
  const Bytes tile = ToBytes(input.Take(std::size_t{8192}));
  const TileReader read = [&](unsigned level, std::uint64_t index) -> Result<Bytes> {
    FUZZ_CHECK(++num_reads <= 4096);
    Bytes bytes = tile;
    bytes.resize(bytes.size() / 32 * 32);
    if (bytes.size() < 8192 && (level + index) % 3 != 0) bytes.resize(8192, 7);
    return bytes;
  };
  if (auto tree = TreeAppender::Load(size, read)) {
    FUZZ_CHECK(tree->size() == size);
    tree->Root();
    for (int i = 0; i < 300; ++i) tree->Append(Bytes32{3});
    FUZZ_CHECK(tree->TakeFilledTiles().size() <= 20);
    FUZZ_CHECK(tree->ChangedTiles().size() <= 20);
  } else {
    CheckError(tree.error());
  }
  num_reads = 0;
  if (auto proof = InclusionProof(other, size, read); proof) FUZZ_CHECK(proof->size() <= 64);
  num_reads = 0;
  if (auto proof = ConsistencyProof(other, size, read); proof) FUZZ_CHECK(proof->size() <= 65);
  num_reads = 0;
  if (size > 0) (void)TreeRoot(size, read).has_value();
  TilePath(static_cast<unsigned>(other % 8), size, static_cast<unsigned>(other % 256) + 1);
}

}  // namespace
}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow::fuzz;
  Input input(data, size);
  switch (input.U8() % 5) {
    case 1: Receipt(input.rest()); break;
    case 2: {
      const std::uint64_t index = input.U64();
      const std::uint64_t tree_size = input.U64();
      const auto leaf = TakeHash(input);
      const auto root = TakeHash(input);
      VerifyInclusion(leaf, index, tree_size, TakeHashes(input), root);
      break;
    }
    case 3: {
      const std::uint64_t old_size = input.U64();
      const std::uint64_t tree_size = input.U64();
      const auto old_root = TakeHash(input);
      const auto root = TakeHash(input);
      VerifyConsistency(old_size, old_root, tree_size, root, TakeHashes(input));
      break;
    }
    case 4: HostileTiles(input); break;
    default: HonestTree(input); break;
  }
  return 0;
}
