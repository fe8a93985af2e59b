// Fills a state folder: make_store DIR COUNT BATCH. A folder that is there is gone on with.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "tests/bench/store_maker.h"

int main(int argc, char** argv) {
  using keyescrow::agent::StoreMaker;
  if (argc != 4) {
    fmt::print(stderr, "usage: make_store DIR COUNT BATCH\n");
    return 2;
  }
  const std::uint64_t count = std::strtoull(argv[2], nullptr, 10);
  const std::uint64_t batch = std::max<std::uint64_t>(std::strtoull(argv[3], nullptr, 10), 1);
  struct stat status {};
  const bool is_there = stat(argv[1], &status) == 0;
  auto maker = is_there ? StoreMaker::Open(argv[1]) : StoreMaker::Create(argv[1]);
  if (!maker) {
    fmt::print(stderr, "error: {}\n", maker.error().message());
    return 1;
  }
  if (const auto added = maker->Add(count, batch); !added) {
    fmt::print(stderr, "error: {}\n", added.error().message());
    return 1;
  }
  fmt::print("{}\n", maker->num_made());
  return 0;
}
