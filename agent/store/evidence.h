// Evidence: what a store that somebody handed over may cost its reader.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "envelope/base/result.h"

namespace keyescrow::agent::store {

// CheckBesideEvidence refuses what SQLite would open beside the store and is no regular file: it
// waits for a pipe. Errors: kStatePermissions.
Status CheckBesideEvidence(const std::string& store_path);

// HeldBytes is the size of the store and its write-ahead log; of a file that is mostly holes, what
// the disk has of it, with room for a file system that packs its files.
std::uint64_t HeldBytes(const std::string& store_path);

// WorkLimit has SQLite stop where pages lead on to one another, and make more rows of a few than
// anybody can read; and refuse a row that no keyescrow writes. Outlives the connection's use.
class WorkLimit {
 public:
  WorkLimit() = default;
  WorkLimit(const WorkLimit&) = delete;
  WorkLimit& operator=(const WorkLimit&) = delete;
  void Set(sqlite3* connection, std::uint64_t held_bytes);

 private:
  std::uint64_t steps_left_ = 0;
};

}  // namespace keyescrow::agent::store
