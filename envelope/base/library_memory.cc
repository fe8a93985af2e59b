#include "envelope/base/library_memory.h"

#include <malloc.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <cstring>

namespace keyescrow {
namespace {

LibraryMemory source;

void* Allocate(std::size_t size, const char* /*file*/, int /*line*/) {
  return source.allocate(size);
}

void GiveBack(void* block, const char* /*file*/, int /*line*/) {
  if (block == nullptr) return;
  OPENSSL_cleanse(block, malloc_usable_size(block));
  source.give_back(block);
}

void* Reallocate(void* block, std::size_t size, const char* file, int line) {
  void* const other = source.allocate(size);
  if (other == nullptr || block == nullptr) return other;
  std::memcpy(other, block, std::min(size, malloc_usable_size(block)));
  GiveBack(block, file, line);
  return other;
}

}  // namespace

bool WipeLibraryMemory(const LibraryMemory& memory) {
  source = memory;
  return CRYPTO_set_mem_functions(&Allocate, &Reallocate, &GiveBack) == 1;
}

}  // namespace keyescrow
