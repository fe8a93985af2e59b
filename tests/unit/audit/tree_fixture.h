// A tree in memory, and RFC 6962's definitions written as they stand there, to compare with.
#pragma once

#include <bit>
#include <map>
#include <string>
#include <vector>

#include "agent/audit/merkle.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::audit {

struct MemoryTree {
  std::map<std::pair<unsigned, std::uint64_t>, Bytes> tiles;
  std::vector<Bytes32> leaves;

  TileReader Reader() const {
    return [this](unsigned level, std::uint64_t index) -> Result<Bytes> {
      const auto found = tiles.find({level, index});
      return found == tiles.end() ? Bytes() : found->second;
    };
  }
  // Append adds one leaf in a transaction of its own, as the journal does.
  void Append(const Bytes32& leaf) {
    auto tree = TreeAppender::Load(leaves.size(), Reader());
    tree->Append(leaf);
    for (Tile& tile : tree->ChangedTiles()) tiles[{tile.level, tile.index}] = tile.bytes;
    leaves.push_back(leaf);
  }
  void AppendMany(std::size_t count) {
    auto tree = TreeAppender::Load(leaves.size(), Reader());
    for (std::size_t i = 0; i < count; ++i) {
      leaves.push_back(LeafHash(AsBytes(std::to_string(leaves.size()))));
      tree->Append(leaves.back());
    }
    for (Tile& tile : tree->ChangedTiles()) tiles[{tile.level, tile.index}] = tile.bytes;
  }
};

inline std::size_t Split(std::size_t n) { return std::bit_floor(n - 1); }

inline Bytes32 NaiveRoot(const std::vector<Bytes32>& leaves, std::size_t first, std::size_t last) {
  if (first == last) return Sha256(ByteView());
  if (last - first == 1) return leaves[first];
  const std::size_t middle = first + Split(last - first);
  return NodeHash(NaiveRoot(leaves, first, middle), NaiveRoot(leaves, middle, last));
}

}  // namespace keyescrow::agent::audit
