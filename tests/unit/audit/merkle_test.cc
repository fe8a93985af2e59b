#include "agent/audit/merkle.h"

#include <gtest/gtest.h>

#include "tests/unit/audit/tree_fixture.h"

namespace keyescrow::agent::audit {
namespace {

// The leaves and roots of the Certificate Transparency test suite (certificate-transparency-go,
// merkle/testonly).
const std::vector<Bytes>& CtLeaves() {
  static const std::vector<Bytes> leaves = {{},
                                            {0x00},
                                            {0x10},
                                            {0x20, 0x21},
                                            {0x30, 0x31},
                                            {0x40, 0x41, 0x42, 0x43},
                                            {0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57},
                                            {0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
                                             0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f}};
  return leaves;
}

constexpr const char* kCtRoots[] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};

MemoryTree CtTree() {
  MemoryTree tree;
  for (const Bytes& leaf : CtLeaves()) tree.Append(LeafHash(leaf));
  return tree;
}

TEST(Merkle, RootsAreThoseOfTheCtSuite) {
  const MemoryTree tree = CtTree();
  CompactRange range;
  for (std::size_t size = 0; size <= 8; ++size) {
    EXPECT_EQ(ToHex(range.Root()), kCtRoots[size]);
    EXPECT_EQ(ToHex(*TreeRoot(size, tree.Reader())), kCtRoots[size]);
    if (size < 8) range.Append(LeafHash(CtLeaves()[size]));
  }
}

TEST(Merkle, InclusionProofIsThatOfTheCtSuite) {
  const MemoryTree tree = CtTree();
  const auto proof = InclusionProof(5, 8, tree.Reader());
  ASSERT_TRUE(proof);
  ASSERT_EQ(proof->size(), 3u);
  EXPECT_EQ(ToHex((*proof)[0]), "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b");
  EXPECT_EQ(ToHex((*proof)[1]), "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0");
  EXPECT_EQ(ToHex((*proof)[2]), kCtRoots[4]);
}

TEST(Merkle, EveryInclusionProofVerifiesAndNoOtherPlaceDoes) {
  MemoryTree tree;
  for (int i = 0; i < 40; ++i) tree.Append(LeafHash(AsBytes(std::to_string(i))));
  for (std::size_t size = 1; size <= 40; ++size) {
    const Bytes32 root = NaiveRoot(tree.leaves, 0, size);
    for (std::size_t index = 0; index < size; ++index) {
      auto proof = InclusionProof(index, size, tree.Reader());
      ASSERT_TRUE(proof);
      EXPECT_TRUE(VerifyInclusion(tree.leaves[index], index, size, *proof, root));
      EXPECT_FALSE(VerifyInclusion(tree.leaves[index], index + 1, size, *proof, root));
      EXPECT_FALSE(VerifyInclusion(tree.leaves[(index + 1) % 40], index, size, *proof, root));
      proof->push_back(root);
      EXPECT_FALSE(VerifyInclusion(tree.leaves[index], index, size, *proof, root));
    }
  }
}

TEST(Merkle, EveryConsistencyProofVerifiesAndNoOtherRootDoes) {
  MemoryTree tree;
  tree.AppendMany(40);
  for (std::size_t size = 1; size <= 40; ++size) {
    const Bytes32 root = NaiveRoot(tree.leaves, 0, size);
    for (std::size_t old_size = 0; old_size <= size; ++old_size) {
      const Bytes32 old_root = NaiveRoot(tree.leaves, 0, old_size);
      const auto proof = ConsistencyProof(old_size, size, tree.Reader());
      ASSERT_TRUE(proof);
      EXPECT_TRUE(VerifyConsistency(old_size, old_root, size, root, *proof));
      if (old_size == size) continue;
      EXPECT_FALSE(VerifyConsistency(old_size, root, size, root, *proof));
      if (old_size == 0) continue;
      EXPECT_FALSE(VerifyConsistency(old_size, old_root, size, old_root, *proof));
    }
  }
}

TEST(Merkle, TilesCarryTheTreeOverTheirBoundaries) {
  MemoryTree tree;
  for (const std::size_t size : {255u, 256u, 257u, 511u, 65535u, 65536u, 65537u, 66000u}) {
    tree.AppendMany(size - tree.leaves.size());
    const Bytes32 root = NaiveRoot(tree.leaves, 0, size);
    EXPECT_EQ(TreeAppender::Load(size, tree.Reader())->Root(), root) << size;
    EXPECT_EQ(*TreeRoot(size, tree.Reader()), root) << size;
    for (const std::size_t index : {std::size_t{0}, size / 2, size - 1}) {
      const auto proof = InclusionProof(index, size, tree.Reader());
      ASSERT_TRUE(proof);
      EXPECT_TRUE(VerifyInclusion(tree.leaves[index], index, size, *proof, root)) << size;
    }
    const auto consistency = ConsistencyProof(200, size, tree.Reader());
    ASSERT_TRUE(consistency);
    EXPECT_TRUE(VerifyConsistency(200, NaiveRoot(tree.leaves, 0, 200), size, root, *consistency));
  }
  EXPECT_EQ((tree.tiles[{0, 257}].size()), 208u * 32);
  EXPECT_EQ((tree.tiles[{1, 0}].size()), 256u * 32);
  EXPECT_EQ((tree.tiles[{2, 0}].size()), 1u * 32);
}

TEST(Merkle, OneByOneAndInBatchesAreTheSameTiles) {
  MemoryTree one;
  MemoryTree many;
  many.AppendMany(600);
  for (const Bytes32& leaf : many.leaves) one.Append(leaf);
  EXPECT_EQ(one.tiles, many.tiles);
}

TEST(Merkle, ShortTilesAreDamageAndPlacesPastTheEndAreNotFound) {
  MemoryTree tree;
  tree.AppendMany(10);
  tree.tiles[{0, 0}].resize(32 * 9);
  EXPECT_EQ(TreeAppender::Load(10, tree.Reader()).error().code(), ErrorCode::kLogDamaged);
  EXPECT_EQ(InclusionProof(8, 10, tree.Reader()).error().code(), ErrorCode::kLogDamaged);
  EXPECT_EQ(InclusionProof(10, 10, tree.Reader()).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(ConsistencyProof(11, 10, tree.Reader()).error().code(), ErrorCode::kNotFound);
}

TEST(TilePath, FollowsTlogTiles) {
  EXPECT_EQ(TilePath(0, 0, 256), "tile/0/000");
  EXPECT_EQ(TilePath(0, 1234067, 256), "tile/0/x001/x234/067");
  EXPECT_EQ(TilePath(1, 999, 5), "tile/1/999.p/5");
}

}  // namespace
}  // namespace keyescrow::agent::audit
