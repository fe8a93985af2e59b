#include "agent/audit/merkle.h"

#include <fmt/core.h>

#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include "envelope/base/hash.h"

namespace keyescrow::agent::audit {
namespace {

constexpr std::size_t kHashBytes = 32;
constexpr std::size_t kTileHeight = 8;  // 256 = 2^8
constexpr std::uint8_t kLeafPrefix = 0x00;
constexpr std::uint8_t kNodePrefix = 0x01;

Error Damaged(std::string message) {
  return Error(
      ErrorCode::kLogDamaged, Action::kCallOperator, std::move(message),
      "compare the log with its copies and with the last checkpoint that an auditor keeps; "
      "restores from a file still work");
}

Bytes32 HashAt(ByteView bytes, std::size_t index) {
  Bytes32 hash;
  std::memcpy(hash.data(), bytes.data() + index * kHashBytes, kHashBytes);
  return hash;
}

// PerfectRoot returns the root over hashes `first` … `first + count - 1`; `count` is a power of
// two.
Bytes32 PerfectRoot(ByteView bytes, std::size_t first, std::size_t count) {
  if (count == 1) return HashAt(bytes, first);
  return NodeHash(PerfectRoot(bytes, first, count / 2),
                  PerfectRoot(bytes, first + count / 2, count / 2));
}

// LargestPowerBelow returns the largest power of two that is less than `n`, which is at least 2.
std::uint64_t LargestPowerBelow(std::uint64_t n) { return std::bit_floor(n - 1); }

// TreeReader computes the hash of any range of leaves from tiles, each read once.
class TreeReader {
 public:
  explicit TreeReader(const TileReader& read) : read_(read) {}

  // Range returns MTH(D[first:last]) where `first` is a multiple of the smallest power of two that
  // is not less than last - first, as all ranges of RFC 6962 are.
  Result<Bytes32> Range(std::uint64_t first, std::uint64_t last) {
    const std::uint64_t count = last - first;
    if (std::has_single_bit(count)) return Perfect(first, count);
    const std::uint64_t split = first + LargestPowerBelow(count);
    ASSIGN_OR_RETURN(const Bytes32 left, Range(first, split));
    ASSIGN_OR_RETURN(const Bytes32 right, Range(split, last));
    return NodeHash(left, right);
  }

 private:
  Result<Bytes32> Perfect(std::uint64_t first, std::uint64_t count) {
    const auto height = static_cast<unsigned>(std::countr_zero(count));
    const unsigned level = height / 8;
    const std::uint64_t start = first >> (8 * level);
    const auto hashes = static_cast<std::size_t>(count >> (8 * level));
    const std::uint64_t index = start / kTileWidth;
    const auto offset = static_cast<std::size_t>(start % kTileWidth);
    auto found = tiles_.find({level, index});
    if (found == tiles_.end()) {
      ASSIGN_OR_RETURN(Bytes bytes, read_(level, index));
      found = tiles_.emplace(std::pair(level, index), std::move(bytes)).first;
    }
    if (found->second.size() < (offset + hashes) * kHashBytes) {
      return Damaged(fmt::format("the log's tile {} is shorter than the log",
                                 TilePath(level, index, kTileWidth)));
    }
    return PerfectRoot(found->second, offset, hashes);
  }

  const TileReader& read_;
  std::map<std::pair<unsigned, std::uint64_t>, Bytes> tiles_;
};

Status AddInclusion(TreeReader& tree, std::uint64_t index, std::uint64_t first, std::uint64_t last,
                    std::vector<Bytes32>& proof) {
  if (last - first == 1) return Ok();
  const std::uint64_t split = first + LargestPowerBelow(last - first);
  const bool left = index < split;
  RETURN_IF_ERROR(AddInclusion(tree, index, left ? first : split, left ? split : last, proof));
  ASSIGN_OR_RETURN(const Bytes32 sibling, tree.Range(left ? split : first, left ? last : split));
  proof.push_back(sibling);
  return Ok();
}

// AddConsistency is SUBPROOF(old_last - first, D[first:last], whole) of RFC 6962, 2.1.2.
Status AddConsistency(TreeReader& tree, std::uint64_t old_last, std::uint64_t first,
                      std::uint64_t last, bool whole, std::vector<Bytes32>& proof) {
  if (old_last == last) {
    if (whole) return Ok();
    ASSIGN_OR_RETURN(const Bytes32 hash, tree.Range(first, last));
    proof.push_back(hash);
    return Ok();
  }
  const std::uint64_t split = first + LargestPowerBelow(last - first);
  const bool left = old_last <= split;
  RETURN_IF_ERROR(AddConsistency(tree, old_last, left ? first : split, left ? split : last,
                                 left && whole, proof));
  ASSIGN_OR_RETURN(const Bytes32 sibling, tree.Range(left ? split : first, left ? last : split));
  proof.push_back(sibling);
  return Ok();
}

}  // namespace

Bytes32 LeafHash(ByteView entry) { return Sha256({ByteView(&kLeafPrefix, 1), entry}); }

Bytes32 NodeHash(const Bytes32& left, const Bytes32& right) {
  std::array<std::uint8_t, 1 + 2 * kHashBytes> node;  // one part is hashed faster than three
  node[0] = kNodePrefix;
  std::memcpy(node.data() + 1, left.data(), kHashBytes);
  std::memcpy(node.data() + 1 + kHashBytes, right.data(), kHashBytes);
  return Sha256(node);
}

void CompactRange::Append(const Bytes32& leaf_hash) {
  edge_.push_back(leaf_hash);
  for (std::uint64_t rest = size_; (rest & 1) != 0; rest >>= 1) {
    const Bytes32 right = edge_.back();
    edge_.pop_back();
    edge_.back() = NodeHash(edge_.back(), right);
  }
  ++size_;
}

Bytes32 CompactRange::Root() const {
  if (edge_.empty()) return Sha256(ByteView());
  Bytes32 root = edge_.back();
  for (std::size_t i = edge_.size() - 1; i-- > 0;) root = NodeHash(edge_[i], root);
  return root;
}

Bytes32 CompactRange::RootWith(const Bytes32& right) const {
  Bytes32 root = right;
  for (std::size_t i = edge_.size(); i-- > 0;) root = NodeHash(edge_[i], root);
  return root;
}

Result<TreeAppender> TreeAppender::Load(std::uint64_t size, const TileReader& read) {
  TreeAppender tree;
  tree.range_.size_ = size;
  for (unsigned level = 0; level < 8 && (size >> (8 * level)) > 0; ++level) {
    const std::uint64_t count = size >> (8 * level);
    const auto width = static_cast<std::size_t>(count % kTileWidth);
    Tile tile{level, count / kTileWidth, {}};
    if (width > 0) {
      ASSIGN_OR_RETURN(tile.bytes, read(level, tile.index));
      if (tile.bytes.size() < width * kHashBytes) {
        return Damaged(fmt::format("the log's tile {} is shorter than the log",
                                   TilePath(level, tile.index, static_cast<unsigned>(width))));
      }
      tile.bytes.resize(width * kHashBytes);
    }
    tree.open_.push_back(std::move(tile));
    tree.open_changed_.push_back(false);
  }
  for (std::size_t level = tree.open_.size(); level-- > 0;) {
    const Bytes& bytes = tree.open_[level].bytes;
    std::size_t first = 0;
    for (std::size_t count = kTileWidth / 2; count > 0; count /= 2) {
      if ((bytes.size() / kHashBytes & count) == 0) continue;
      tree.range_.edge_.push_back(PerfectRoot(bytes, first, count));
      first += count;
    }
  }
  return tree;
}

void TreeAppender::Append(const Bytes32& leaf_hash) {
  const auto keep = [this](std::size_t level, const Bytes32& hash) {
    if (level == open_.size()) {
      open_.push_back({static_cast<unsigned>(level), 0, {}});
      open_changed_.push_back(false);
    }
    Tile& tile = open_[level];
    tile.bytes.insert(tile.bytes.end(), hash.begin(), hash.end());
    open_changed_[level] = true;
    if (tile.bytes.size() < kTileWidth * kHashBytes) return;
    const std::uint64_t next = tile.index + 1;
    filled_.push_back(std::move(tile));
    tile = {static_cast<unsigned>(level), next, {}};
    open_changed_[level] = false;
  };
  // The nodes that the right edge is made of are those that the tiles keep: each is hashed once.
  keep(0, leaf_hash);
  Bytes32 hash = leaf_hash;
  std::size_t height = 0;
  for (std::uint64_t rest = range_.size_; (rest & 1) != 0; rest >>= 1) {
    hash = NodeHash(range_.edge_.back(), hash);
    range_.edge_.pop_back();
    if (++height % kTileHeight == 0) keep(height / kTileHeight, hash);
  }
  range_.edge_.push_back(hash);
  ++range_.size_;
}

std::vector<Tile> TreeAppender::ChangedTiles() const {
  std::vector<Tile> tiles = filled_;
  for (std::size_t level = 0; level < open_.size(); ++level) {
    if (open_changed_[level]) tiles.push_back(open_[level]);
  }
  return tiles;
}

Result<std::vector<Bytes32>> InclusionProof(std::uint64_t index, std::uint64_t size,
                                            const TileReader& read) {
  if (index >= size) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 fmt::format("the log has no entry {}", index),
                 fmt::format("name an entry below {}", size));
  }
  TreeReader tree(read);
  std::vector<Bytes32> proof;
  RETURN_IF_ERROR(AddInclusion(tree, index, 0, size, proof));
  return proof;
}

Result<std::vector<Bytes32>> ConsistencyProof(std::uint64_t old_size, std::uint64_t size,
                                              const TileReader& read) {
  if (old_size > size) {
    return Error(ErrorCode::kNotFound, Action::kCallOperator,
                 fmt::format("the log has {} entries, fewer than {}", size, old_size),
                 "the log was cut, or is another one: compare it with its copies");
  }
  std::vector<Bytes32> proof;
  if (old_size == 0 || old_size == size) return proof;
  TreeReader tree(read);
  RETURN_IF_ERROR(AddConsistency(tree, old_size, 0, size, true, proof));
  return proof;
}

Result<Bytes32> TreeRoot(std::uint64_t size, const TileReader& read) {
  if (size == 0) return Sha256(ByteView());
  TreeReader tree(read);
  return tree.Range(0, size);
}

bool VerifyInclusion(const Bytes32& leaf_hash, std::uint64_t index, std::uint64_t size,
                     const std::vector<Bytes32>& proof, const Bytes32& root) {
  if (index >= size) return false;
  std::uint64_t node = index;
  std::uint64_t last = size - 1;
  Bytes32 hash = leaf_hash;
  for (const Bytes32& sibling : proof) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      hash = NodeHash(sibling, hash);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      hash = NodeHash(hash, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && hash == root;
}

bool VerifyConsistency(std::uint64_t old_size, const Bytes32& old_root, std::uint64_t size,
                       const Bytes32& root, const std::vector<Bytes32>& proof) {
  if (old_size > size) return false;
  if (old_size == size) return proof.empty() && old_root == root;
  if (old_size == 0) return proof.empty() && old_root == Sha256(ByteView());
  std::span<const Bytes32> path(proof);
  Bytes32 first;
  if (std::has_single_bit(old_size)) {
    first = old_root;
  } else {
    if (path.empty()) return false;
    first = path.front();
    path = path.subspan(1);
  }
  std::uint64_t node = old_size - 1;
  std::uint64_t last = size - 1;
  while ((node & 1) != 0) {
    node >>= 1;
    last >>= 1;
  }
  Bytes32 old_hash = first;
  Bytes32 new_hash = first;
  for (const Bytes32& step : path) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      old_hash = NodeHash(step, old_hash);
      new_hash = NodeHash(step, new_hash);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      new_hash = NodeHash(new_hash, step);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && old_hash == old_root && new_hash == root;
}

std::string TilePath(unsigned level, std::uint64_t index, unsigned width) {
  std::string number = fmt::format("{:03}", index % 1000);
  for (std::uint64_t rest = index / 1000; rest > 0; rest /= 1000) {
    number = fmt::format("x{:03}/{}", rest % 1000, number);
  }
  std::string path = fmt::format("tile/{}/{}", level, number);
  if (width < kTileWidth) path += fmt::format(".p/{}", width);
  return path;
}

}  // namespace keyescrow::agent::audit
