#include "envelope/kdf.h"

#include <argon2.h>
#include <openssl/evp.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kHugePage = 2U << 20;

std::size_t RoundUp(std::size_t size) { return (size + kHugePage - 1) / kHugePage * kHugePage; }

// Argon2's memory, aligned to huge pages: filling 4 KB pages one fault at a time costs a third of
// the whole KDF. Kept out of core dumps, and locked as it is touched where the limit allows it
// (256 MiB are beyond the usual RLIMIT_MEMLOCK; agent/docs/THREAT-MODEL names the consequence).
int AllocateBlocks(std::uint8_t** memory, std::size_t size) {
  const std::size_t rounded = RoundUp(size);
  void* mapping = mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return ARGON2_MEMORY_ALLOCATION_ERROR;
  auto* start = static_cast<std::uint8_t*>(mapping);
  const std::size_t misalignment = reinterpret_cast<std::uintptr_t>(start) % kHugePage;
  const std::size_t head = misalignment == 0 ? 0 : kHugePage - misalignment;
  if (head > 0) munmap(start, head);
  munmap(start + head + rounded, kHugePage - head);
  *memory = start + head;
  madvise(*memory, rounded, MADV_HUGEPAGE);
  madvise(*memory, rounded, MADV_DONTDUMP);
  mlock2(*memory, rounded, MLOCK_ONFAULT);
  return ARGON2_OK;
}

// libargon2 has wiped the blocks by now (FLAG_clear_internal_memory is its default).
void FreeBlocks(std::uint8_t* memory, std::size_t size) { munmap(memory, RoundUp(size)); }

// UsableThreads returns how many of `wanted` threads libargon2 can be given. Where it cannot start
// one it returns at once, and those that it did start go on in memory that is gone: so it is given
// threads only where twice as many can be had (one that has ended counts for a moment longer).
std::uint32_t UsableThreads(std::uint32_t wanted) {
  if (wanted <= 1) return 1;
  std::vector<std::thread> threads;
  threads.reserve(2 * std::size_t{wanted});
  std::mutex gate;
  {
    const std::lock_guard closed(gate);
    try {
      while (threads.size() < 2 * std::size_t{wanted}) {
        threads.emplace_back([&gate] { const std::lock_guard passed(gate); });
      }
    } catch (const std::system_error&) {
      // A limit on processes and threads.
    }
  }
  for (std::thread& thread : threads) thread.join();
  return std::max<std::uint32_t>(1, static_cast<std::uint32_t>(threads.size() / 2));
}

Result<SecretBytes> Argon2id(const SecretBytes& password, const PasswordRecord& record,
                             const Argon2idParameters& parameters) {
  ASSIGN_OR_RETURN(SecretBytes output, SecretBytes::Allocate(32));
  argon2_context context{};
  context.out = output.ExposeMutable().data();
  context.outlen = 32;
  context.pwd = const_cast<std::uint8_t*>(password.Expose().data());  // not written: no flag asks
  context.pwdlen = static_cast<std::uint32_t>(password.size());
  context.salt = reinterpret_cast<std::uint8_t*>(const_cast<char*>(record.salt.data()));
  context.saltlen = static_cast<std::uint32_t>(record.salt.size());
  context.t_cost = parameters.passes;
  context.m_cost = parameters.memory_kib;
  context.lanes = parameters.lanes;
  context.threads = UsableThreads(
      std::clamp<std::uint32_t>(std::thread::hardware_concurrency(), 1, parameters.lanes));
  context.version = ARGON2_VERSION_13;
  context.allocate_cbk = AllocateBlocks;
  context.free_cbk = FreeBlocks;
  context.flags = ARGON2_DEFAULT_FLAGS;
  const int outcome = argon2id_ctx(&context);
  if (outcome != ARGON2_OK) {
    return Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState,
                 "stretching the password needs " + std::to_string(parameters.memory_kib / 1024) +
                     " MiB of memory: " + argon2_error_message(outcome),
                 "free some memory, or use a machine that has it")
        .WithNative("argon2", static_cast<std::uint64_t>(-outcome));
  }
  return output;
}

Result<SecretBytes> Pbkdf2(const SecretBytes& password, const PasswordRecord& record,
                           const Pbkdf2Parameters& parameters) {
  ASSIGN_OR_RETURN(SecretBytes output, SecretBytes::Allocate(32));
  const ByteView salt = AsBytes(record.salt);
  if (PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(password.Expose().data()),
                        static_cast<int>(password.size()), salt.data(),
                        static_cast<int>(salt.size()), static_cast<int>(parameters.iterations),
                        EVP_sha512(), 32, output.ExposeMutable().data()) != 1) {
    return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
                 "the cryptographic library failed: pbkdf2", "report this");
  }
  return output;
}

}  // namespace

Result<SecretBytes> StretchPassword(const SecretBytes& password, const PasswordRecord& record) {
  RETURN_IF_ERROR(CheckKdfParameters(record.kdf));
  if (const auto* argon2 = std::get_if<Argon2idParameters>(&record.kdf)) {
    return Argon2id(password, record, *argon2);
  }
  return Pbkdf2(password, record, std::get<Pbkdf2Parameters>(record.kdf));
}

Result<PasswordRecord> NewPasswordRecord(const KdfParameters& parameters, RandomSource& random) {
  RETURN_IF_ERROR(CheckKdfParameters(parameters));
  Bytes16 salt;
  RETURN_IF_ERROR(random.Fill(salt));
  return PasswordRecord{parameters, ToHex(salt)};
}

}  // namespace keyescrow::envelope
