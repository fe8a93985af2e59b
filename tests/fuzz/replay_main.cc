// Runs every file of the folders that are named through the fuzzer's function, each in a process of
// its own under the fuzzer's limits: an input that crashes, takes more memory or takes more time
// ends that process, and so the test.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/fuzz.h"
#include "tests/slowness.h"

namespace keyescrow::fuzz {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitsAddressSpace = false;  // the shadow memory is beyond any limit
#else
constexpr bool kLimitsAddressSpace = true;
#endif

const unsigned kCpuSeconds = kLimits.cpu_s * static_cast<unsigned>(kSlowness);

int num_inputs = 0;
int num_failed = 0;
std::string current;

// AddressSpaceBytes is what the process has now; statm's first number counts pages.
std::size_t AddressSpaceBytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t pages = 0;
  statm >> pages;
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

void Limit(decltype(RLIMIT_AS) resource, std::size_t value) {
  const rlimit limit{value, value};
  FUZZ_CHECK(setrlimit(resource, &limit) == 0);
}

void RunOne(ByteView input) {
  ++num_inputs;
  std::fflush(nullptr);
  const pid_t child = fork();
  FUZZ_CHECK(child >= 0);
  if (child == 0) {
    if (kLimitsAddressSpace) Limit(RLIMIT_AS, AddressSpaceBytes() + (kLimits.memory_mib << 20));
    Limit(RLIMIT_CPU, kCpuSeconds);
    Limit(RLIMIT_CORE, 0);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    std::fflush(nullptr);
    std::quick_exit(0);  // what Prepare made belongs to the parent
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  ++num_failed;
  std::printf("FAILED: %s (%s %d; limits: %zu MiB, %u s)\n", current.c_str(),
              WIFSIGNALED(status) ? "signal" : "exit status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), kLimits.memory_mib,
              kCpuSeconds);
}

Bytes ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

int Replay(int num_folders, char** folders) {
  Prepare();
  current = "the empty input";
  RunOne({});
  for (int index = 0; index < num_folders; ++index) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folders[index])) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) {
      std::printf("FAILED: %s holds no input\n", folders[index]);
      return 1;
    }
    for (const auto& file : files) {
      current = file.string();
      const Bytes input = ReadFile(file);
      // A buffer of its own size, so that a read past its end is one.
      RunOne(input);
      if (input.size() > kLimits.max_len) {
        std::printf("FAILED: %s is longer than max_len\n", current.c_str());
        ++num_failed;
      }
    }
  }
  current = "one of the largest inputs";
  VisitLargest(RunOne);
  std::printf("%d inputs, %d failed\n", num_inputs, num_failed);
  return num_failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace keyescrow::fuzz

int main(int argc, char** argv) { return keyescrow::fuzz::Replay(argc - 1, argv + 1); }
