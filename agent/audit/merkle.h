// The log's Merkle tree (RFC 6962, section 2) kept as C2SP tlog-tiles: hashes in, proofs out.
//
// Leaf = SHA-256(00 ‖ entry), node = SHA-256(01 ‖ left ‖ right), the empty tree is SHA-256("").
// Tile (L, N) holds, 32 bytes each, the roots of the complete subtrees of 256^L leaves numbered
// 256·N … 256·N + 255: at most 8192 bytes, fewer at the tree's right edge. Nothing here knows where
// tiles are kept: a TileReader fetches them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

inline constexpr std::uint64_t kTileWidth = 256;

Bytes32 LeafHash(ByteView entry);
Bytes32 NodeHash(const Bytes32& left, const Bytes32& right);

// CompactRange is the tree's right edge: the roots of the maximal perfect subtrees, largest first.
// Constant memory: at most 64 hashes.
class CompactRange {
 public:
  std::uint64_t size() const { return size_; }
  void Append(const Bytes32& leaf_hash);
  Bytes32 Root() const;
  // RootWith returns the root of this tree followed by one whose root is `right`; that one has at
  // most as many leaves as the smallest perfect subtree here.
  Bytes32 RootWith(const Bytes32& right) const;

 private:
  friend class TreeAppender;
  std::uint64_t size_ = 0;
  std::vector<Bytes32> edge_;
};

// TileReader returns all the bytes that are kept of tile (level, index), a multiple of 32; empty
// where there is none.
using TileReader = std::function<Result<Bytes>(unsigned level, std::uint64_t index)>;

struct Tile {
  unsigned level = 0;
  std::uint64_t index = 0;
  Bytes bytes;
};

// TreeAppender adds leaves to a tree of which only the tiles are kept.
class TreeAppender {
 public:
  // Load reads the right-edge tiles of a tree of `size` leaves: at most 8 of them.
  // Errors: kLogDamaged where a tile is shorter than the size demands; those of `read`.
  static Result<TreeAppender> Load(std::uint64_t size, const TileReader& read);

  std::uint64_t size() const { return range_.size(); }
  Bytes32 Root() const { return range_.Root(); }
  const CompactRange& Range() const { return range_; }
  void Append(const Bytes32& leaf_hash);
  // ChangedTiles returns every tile that the appended leaves touched, whole.
  std::vector<Tile> ChangedTiles() const;
  // TakeFilledTiles returns the tiles that became full since the last call and forgets them.
  std::vector<Tile> TakeFilledTiles() { return std::exchange(filled_, {}); }

 private:
  CompactRange range_;
  std::vector<Tile> open_;    // the partial tile of each level
  std::vector<Tile> filled_;  // tiles completed by Append
  std::vector<bool> open_changed_;
};

// InclusionProof proves leaf `index` in the tree of the first `size` leaves, from the leaf's
// sibling up (RFC 6962, 2.1.1). Reads O(log size) tiles. Errors: kNotFound where index ≥ size;
// kLogDamaged where a tile is too short.
Result<std::vector<Bytes32>> InclusionProof(std::uint64_t index, std::uint64_t size,
                                            const TileReader& read);
// ConsistencyProof proves that the first `old_size` of `size` leaves are unchanged (RFC 6962,
// 2.1.2); empty for 0 and for equal sizes. Errors: kNotFound where old_size > size.
Result<std::vector<Bytes32>> ConsistencyProof(std::uint64_t old_size, std::uint64_t size,
                                              const TileReader& read);
// TreeRoot returns the root of the first `size` leaves. Errors: kLogDamaged.
Result<Bytes32> TreeRoot(std::uint64_t size, const TileReader& read);

// The two verifiers (RFC 9162, 2.1.3.2 and 2.1.4.2) need no tile.
bool VerifyInclusion(const Bytes32& leaf_hash, std::uint64_t index, std::uint64_t size,
                     const std::vector<Bytes32>& proof, const Bytes32& root);
bool VerifyConsistency(std::uint64_t old_size, const Bytes32& old_root, std::uint64_t size,
                       const Bytes32& root, const std::vector<Bytes32>& proof);

// TilePath returns tile/<L>/<N>[.p/<W>], N in groups of three digits (x001/x234/067); width 256
// is a full tile. Source: C2SP tlog-tiles.
std::string TilePath(unsigned level, std::uint64_t index, unsigned width);

}  // namespace keyescrow::agent::audit
