#include "agent/usecases/fingerprint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/agent_state.h"
#include "agent/usecases/process_facts.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kLabel = "keyescrow fingerprint/1";
constexpr std::string_view kIdLabel = "keyescrow fingerprint key/1";

std::array<std::uint8_t, 4> BigEndian(std::uint32_t number) {
  return {static_cast<std::uint8_t>(number >> 24), static_cast<std::uint8_t>(number >> 16),
          static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)};
}

}  // namespace

Fingerprinter::Fingerprinter(SecretBytes mac_key) : mac_key_(std::move(mac_key)) {
  const Bytes32 tag = HmacSha256(mac_key_.Expose(), {AsBytes(kIdLabel)});
  std::copy_n(tag.begin(), id_.size(), id_.begin());
}

Result<Fingerprinter> Fingerprinter::Load(const std::string& state_dir) {
  ASSIGN_OR_RETURN(SecretBytes mac_key, LoadFingerprintKey(state_dir));
  return Fingerprinter(std::move(mac_key));
}

Result<Fingerprinter> Fingerprinter::Ensure(const std::string& state_dir, RandomSource& random) {
  ASSIGN_OR_RETURN(SecretBytes mac_key, EnsureFingerprintKey(state_dir, random));
  return Fingerprinter(std::move(mac_key));
}

Bytes32 Fingerprinter::Of(const std::string& key_name, std::uint32_t version,
                          const SecretBytes& key) const {
  constexpr std::uint8_t kEnd[] = {0};
  const auto name_size = BigEndian(static_cast<std::uint32_t>(key_name.size()));
  const auto version_bytes = BigEndian(version);
  return HmacSha256(mac_key_.Expose(), {AsBytes(kLabel), kEnd, name_size, AsBytes(key_name),
                                        version_bytes, key.Expose()});
}

bool Fingerprinter::Matches(const store::FingerprintRecord& record, const SecretBytes& key) const {
  return Made(record) &&
         EqualConstantTime(record.mac, Of(record.key_name, record.key_version, key));
}

std::string AbsolutePath(const std::string& path) {
  if (path.empty()) return "";
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

std::string SourceFilePath(const std::string& source) {
  const auto location = ParseLocation(source);
  return location ? AbsolutePath((*location)->FilePath()) : "";
}

namespace {

// NewFileAccess: of a file that this process will make at `path`; none where something is there.
std::optional<store::FingerprintRecord::SourceAccess> NewFileAccess(const std::string& path) {
  struct stat status {};
  if (path.empty() || lstat(path.c_str(), &status) == 0 || errno != ENOENT) return std::nullopt;
  const std::string folder = std::filesystem::path(AbsolutePath(path)).parent_path().string();
  if (stat(folder.c_str(), &status) != 0) return std::nullopt;
  const bool inherits = (status.st_mode & S_ISGID) != 0;
  return store::FingerprintRecord::SourceAccess{geteuid(), inherits ? status.st_gid : getegid(),
                                                0600};
}

}  // namespace

store::FingerprintRecord MakeFingerprint(const Agent& agent, const Fingerprinter& fingerprinter,
                                         const std::string& key_name, std::uint32_t version,
                                         const SecretBytes& key, const std::string& source_path) {
  store::FingerprintRecord record;
  record.key_name = key_name;
  record.key_version = version;
  record.mac_key_id = fingerprinter.id();
  record.mac = fingerprinter.Of(key_name, version, key);
  record.machine = MachineId();
  record.source = AbsolutePath(source_path);
  if (const auto access = StatKeyFile(source_path)) {
    record.access =
        store::FingerprintRecord::SourceAccess{access->uid, access->gid, access->permissions};
  } else {
    record.access = NewFileAccess(source_path);
  }
  record.time = agent.Now();
  return record;
}

void AddRestoredFingerprint(Agent& agent, const std::string& key_name, std::uint32_t version,
                            const SecretBytes& key, const std::string& sink_path,
                            store::Change& change) {
  const DeclaredKey* declared = agent.environment().config->FindKey(key_name);
  if (declared == nullptr || sink_path.empty()) return;
  if (SourceFilePath(declared->source) != AbsolutePath(sink_path)) return;
  const auto fingerprinter =
      Fingerprinter::Ensure(agent.environment().state_dir, *agent.environment().random);
  if (!fingerprinter) return;
  change.fingerprints.push_back(
      MakeFingerprint(agent, *fingerprinter, key_name, version, key, sink_path));
}

}  // namespace keyescrow::agent
