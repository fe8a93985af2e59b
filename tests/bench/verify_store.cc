// How long a store takes to verify, beside what it cannot be done without: verify_store DIR PAIRS.
//
// Two floors, measured in the same run: reading the store's file from one end to the other, and
// hashing as many envelopes, entries and nodes as there are. Then `verify --quick` on one thread
// and on two, in pairs, and the whole verification once on each.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "agent/usecases/agent_state.h"
#include "agent/usecases/envelope_check.h"
#include "agent/usecases/store_verification.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kReadBytes = std::size_t{1} << 20;
constexpr std::uint64_t kSampleRows = 2000;
constexpr std::uint64_t kSampleHashes = 100'000;
constexpr double kMiB = 1024.0 * 1024.0;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double ReadFileSeconds(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::vector<std::uint8_t> buffer(kReadBytes);
  const auto start = Clock::now();
  while (file >= 0 && read(file, buffer.data(), buffer.size()) > 0) {
  }
  const double seconds = Since(start);
  close(file);
  return seconds;
}

struct Sizes {
  std::uint64_t num_entries = 0;
  std::uint64_t num_envelopes = 0;
  std::size_t entry_bytes = 0;
  std::size_t payload_bytes = 0;
};

Result<Sizes> MeanSizes(const std::string& folder) {
  ASSIGN_OR_RETURN(auto reader, store::StoreReader::Open(folder, store::ReaderMode::kEvidence));
  Sizes sizes;
  std::uint64_t rows = 0;
  RETURN_IF_ERROR(reader->Entries(0, kSampleRows, [&](const store::EntryRow& row) {
    sizes.entry_bytes += row.bytes.size();
    ++rows;
    return true;
  }));
  sizes.entry_bytes /= std::max<std::uint64_t>(rows, 1);
  rows = 0;
  RETURN_IF_ERROR(reader->Envelopes(0, kSampleRows, [&](const store::EnvelopeRow& row) {
    const std::string_view text = AsText(row.bytes);
    sizes.payload_bytes += text.find('"', 12) - 12;
    ++rows;
    return true;
  }));
  sizes.payload_bytes /= std::max<std::uint64_t>(rows, 1);
  sizes.num_entries = reader->extent().num_entries;
  sizes.num_envelopes = static_cast<std::uint64_t>(reader->extent().max_envelope_id);
  return sizes;
}

double HashSeconds(const Sizes& sizes) {
  const Bytes payload(sizes.payload_bytes, 'p');
  const Bytes entry(sizes.entry_bytes + 1, 'e');
  const Bytes node(65, 'n');
  const auto each = [](const Bytes& bytes) {
    const auto start = Clock::now();
    std::uint8_t mixed = 0;
    for (std::uint64_t i = 0; i < kSampleHashes; ++i) mixed ^= Sha256(bytes)[0];
    // The result is looked at, so that nothing of it is left out.
    return Since(start) / kSampleHashes + (mixed == 1 ? 1e-12 : 0.0);
  };
  return static_cast<double>(sizes.num_envelopes) * each(payload) +
         static_cast<double>(sizes.num_entries) * (each(entry) + each(node));
}

double PeakMiB() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

Status Measure(const std::string& folder, int num_pairs) {
  ASSIGN_OR_RETURN(const AgentIdentity identity, ReadAgentIdentity(folder));
  ASSIGN_OR_RETURN(const Sizes sizes, MeanSizes(folder));
  StoreVerifyOptions options;
  options.state_dir = folder;
  options.origin = identity.origin;
  options.log_keys = {audit::NoteKey::Ed25519(identity.origin, identity.ed25519),
                      audit::NoteKey::P256(identity.origin, identity.p256)};
  options.agents = {identity.Thumbprint()};
  options.quick = true;
  const auto verify = [&](unsigned num_threads, StoreVerification& found) -> Result<double> {
    options.num_threads = num_threads;
    ASSIGN_OR_RETURN(found, VerifyStore(options));
    if (found.log.num_findings != 0) {
      return Error(ErrorCode::kInternal, Action::kReportBug,
                   "the store does not verify: " + found.log.findings.front().text,
                   "make it again");
    }
    return found.seconds;
  };
  StoreVerification found;
  ASSIGN_OR_RETURN([[maybe_unused]] const double warm, verify(2, found));
  std::vector<double> reads, hashes, ones, twos, speedups, one_ratios, two_ratios;
  for (int pair = 0; pair < num_pairs; ++pair) {
    reads.push_back(ReadFileSeconds(folder + "/store.db"));
    hashes.push_back(HashSeconds(sizes));
    ASSIGN_OR_RETURN(const double one, verify(1, found));
    ASSIGN_OR_RETURN(const double two, verify(2, found));
    ones.push_back(one);
    twos.push_back(two);
    speedups.push_back(one / two);
    const double floor = std::max(reads.back(), hashes.back());
    one_ratios.push_back(one / floor);
    two_ratios.push_back(two / floor);
  }
  fmt::print("{} entries of {} bytes, {} envelopes of {} bytes to hash, file {:.0f} MiB\n",
             sizes.num_entries, sizes.entry_bytes, sizes.num_envelopes, sizes.payload_bytes,
             static_cast<double>(found.file_bytes) / kMiB);
  fmt::print("floor: reading {:.2f} s, hashing {:.2f} s\n", Median(reads), Median(hashes));
  fmt::print("quick, one thread: {:.2f} s, {:.2f} x the larger floor\n", Median(ones),
             Median(one_ratios));
  fmt::print("quick, two threads: {:.2f} s, {:.2f} x the larger floor, {:.2f} x as fast as one\n",
             Median(twos), Median(two_ratios), Median(speedups));
  fmt::print("peak memory {:.0f} MiB; allowed {:.0f} MiB\n", PeakMiB(),
             64 + static_cast<double>(sizes.num_entries) * 32 / kMiB);
  options.quick = false;
  for (const unsigned num_threads : {1U, 2U}) {
    ASSIGN_OR_RETURN(const double seconds, verify(num_threads, found));
    fmt::print("all, {} thread(s): {:.1f} s, {} signatures; peak memory {:.0f} MiB\n", num_threads,
               seconds, found.num_envelope_signatures + found.log.num_signatures, PeakMiB());
  }
  return Ok();
}

}  // namespace
}  // namespace keyescrow::agent

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: verify_store DIR PAIRS\n");
    return 2;
  }
  const auto measured = keyescrow::agent::Measure(argv[1], std::max(1, std::atoi(argv[2])));
  if (measured) return 0;
  fmt::print(stderr, "error: {}\n", measured.error().message());
  return 1;
}
