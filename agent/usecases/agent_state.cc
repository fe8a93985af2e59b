#include "agent/usecases/agent_state.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/store/sqlite_store.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

constexpr const char* kIdentityFile = "agent.json";
constexpr const char* kSeedFile = "ed25519.seed";
constexpr const char* kScalarFile = "agent-p256.key";
constexpr const char* kTpmAuthFile = "agent-tpm.auth";
constexpr const char* kFingerprintKeyFile = "fingerprint.key";
constexpr const char* kAnchorAuthFile = "anchor-tpm.auth";
constexpr std::size_t kSecretBytes = 32;
constexpr std::size_t kMaxIdentityBytes = 16 * 1024;
constexpr int kIdentitySchema = 1;

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }
  bool ok() const { return descriptor_ >= 0; }

 private:
  int descriptor_;
};

Error WriteError(const std::string& path, int error_number) {
  ErrorCode code = ErrorCode::kStoreUnavailable;
  std::string hint = "look for disk errors in the kernel's log";
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      code = ErrorCode::kStoreFull;
      hint = "free space or inodes on the disk under the state folder: 'df' and 'df -i' tell which";
      break;
    case EROFS:
    case EACCES:
    case EPERM:
      code = ErrorCode::kStoreReadOnly;
      hint = "make the state folder writable, or run as its owner";
      break;
    default: break;
  }
  return ErrnoError(code, Action::kCheckSystemState, fmt::format("{} cannot be written", path),
                    std::move(hint), error_number);
}

// WritePrivateFile puts `bytes` at folder/name: temporary, fsync, rename, fsync of the folder.
Status WritePrivateFile(const std::string& folder, const char* name, ByteView bytes) {
  const std::string path = fmt::format("{}/{}", folder, name);
  const std::string temporary = path + ".new";
  if (unlink(temporary.c_str()) != 0 && errno != ENOENT) return WriteError(temporary, errno);
  const File file(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.ok() || fchmod(file.get(), 0600) != 0) return WriteError(temporary, errno);
  while (!bytes.empty()) {
    const ssize_t count = write(file.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return WriteError(temporary, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  const File parent(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fsync(file.get()) != 0 || rename(temporary.c_str(), path.c_str()) != 0 || !parent.ok() ||
      fsync(parent.get()) != 0) {
    return WriteError(path, errno);
  }
  return Ok();
}

// MakeFolder makes the state folder with mode 0700 whatever the umask, and its name durable; false
// where it is there already.
Result<bool> MakeFolder(const std::string& state_dir) {
  if (mkdir(state_dir.c_str(), 0700) != 0) {
    if (errno == EEXIST) return false;
    if (errno == ENOENT) {
      return ErrnoError(ErrorCode::kStoreUnavailable, Action::kFixInput,
                        fmt::format("{} cannot be made", state_dir),
                        "make the folder above it first", errno);
    }
    return WriteError(state_dir, errno);
  }
  if (chmod(state_dir.c_str(), 0700) != 0) return WriteError(state_dir, errno);
  const File above(open((state_dir + "/..").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!above.ok() || fsync(above.get()) != 0) return WriteError(state_dir, errno);
  return true;
}

std::string IdentityText(const AgentIdentity& identity) {
  nlohmann::ordered_json json;
  json["schema"] = kIdentitySchema;
  json["host"] = identity.host;
  json["origin"] = identity.origin;
  json["created"] = identity.created;
  json["p256"] = {{"crv", "P-256"},
                  {"kty", "EC"},
                  {"x", EncodeBase64Url(identity.p256.x())},
                  {"y", EncodeBase64Url(identity.p256.y())}};
  json["place"] = identity.place == AgentKeyPlace::kTpm ? "tpm" : "file";
  json["tpm_public"] = EncodeBase64Url(identity.tpm_public);
  json["tpm_private"] = EncodeBase64Url(identity.tpm_private);
  json["srk_public"] = EncodeBase64Url(identity.srk_public);
  json["ed25519"] = EncodeBase64Url(identity.ed25519);
  if (identity.anchor) {
    json["anchor"] = {{"index", identity.anchor->key.nv_index},
                      {"base", identity.anchor->base},
                      {"tpm_public", EncodeBase64Url(identity.anchor->key.attestation_public)},
                      {"tpm_private", EncodeBase64Url(identity.anchor->tpm_private)}};
  }
  return json.dump(2, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

constexpr const char* kIdentityLost =
    "put it back from a copy; without one, RECOVER-WITHOUT-KEYESCROW.md takes an envelope out of "
    "store.db, which 'keyescrow restore FILE --agent THUMBPRINT' opens";

Error IdentityDamaged(const std::string& path, std::string_view what) {
  return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
               fmt::format("{} does not parse: {}", path, what), kIdentityLost);
}

// CannotRead: the file is there, and nothing is known to be wrong with what it holds.
Error CannotRead(const std::string& path, int error_number) {
  const bool may_not = error_number == EACCES || error_number == EPERM;
  return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                    fmt::format("{} cannot be read", path),
                    may_not ? "run as the owner of the state folder"
                            : "look for disk errors in the kernel's log, and run the command again",
                    error_number);
}

Result<Bytes> ReadAll(const std::string& path, std::size_t max_bytes) {
  // Of a folder that somebody handed over, a pipe in the file's place would be waited for.
  const File file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info {};
  if (file.ok() && fstat(file.get(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Error(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                 fmt::format("{} is not a regular file", path),
                 "put the file itself into the state folder");
  }
  Bytes bytes(max_bytes);
  std::size_t size = 0;
  ssize_t count = file.ok() ? 1 : -1;
  while (count > 0 && size < max_bytes) {
    count = read(file.get(), bytes.data() + size, max_bytes - size);
    if (count > 0) size += static_cast<std::size_t>(count);
  }
  if (count < 0) return CannotRead(path, errno);
  bytes.resize(size);
  return bytes;
}

// Member returns a text member, "" where it is missing or of another kind.
std::string Member(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// ReadAnchor fills `anchor` where there is one; false where it is malformed.
bool ReadAnchor(const nlohmann::json& json, std::optional<AnchorIdentity>& anchor) {
  const auto found = json.find("anchor");
  if (found == json.end()) return true;
  if (!found->is_object()) return false;
  const auto index = found->find("index");
  const auto base = found->find("base");
  auto key = DecodeBase64Url(Member(*found, "tpm_public"));
  auto blob = DecodeBase64Url(Member(*found, "tpm_private"));
  if (index == found->end() || !index->is_number_unsigned() ||
      index->get<std::uint64_t>() > UINT32_MAX || base == found->end() ||
      !base->is_number_unsigned() || !key || !blob || !envelope::ParseAttestationKey(*key)) {
    return false;
  }
  anchor = AnchorIdentity{
      {std::move(*key), index->get<std::uint32_t>()}, std::move(*blob), base->get<std::uint64_t>()};
  return true;
}

std::optional<AgentIdentity> ReadIdentity(const nlohmann::json& json) {
  const auto p256 = json.find("p256");
  if (p256 == json.end() || !p256->is_object()) return std::nullopt;
  const auto x = DecodeBase64Url(Member(*p256, "x"));
  const auto y = DecodeBase64Url(Member(*p256, "y"));
  const auto point = x && y ? P256Point::FromXy(*x, *y) : std::nullopt;
  const auto tpm_public = DecodeBase64Url(Member(json, "tpm_public"));
  const auto tpm_private = DecodeBase64Url(Member(json, "tpm_private"));
  const auto srk_public = DecodeBase64Url(Member(json, "srk_public"));
  const auto ed25519 = DecodeBase64Url(Member(json, "ed25519"));
  const std::string place = Member(json, "place");
  if (!point || *point == UnsetPoint() || !tpm_public || !tpm_private || !srk_public || !ed25519 ||
      ed25519->size() != 32 || (place != "tpm" && place != "file")) {
    return std::nullopt;
  }
  AgentIdentity identity{Member(json, "host"),
                         Member(json, "origin"),
                         Member(json, "created"),
                         *point,
                         place == "tpm" ? AgentKeyPlace::kTpm : AgentKeyPlace::kFile,
                         *tpm_public,
                         *tpm_private,
                         *srk_public,
                         {}};
  std::copy(ed25519->begin(), ed25519->end(), identity.ed25519.begin());
  if (identity.host.empty() || identity.origin.empty()) return std::nullopt;
  if (!ReadAnchor(json, identity.anchor)) return std::nullopt;
  return identity;
}

Error FingerprintKeyLost(const std::string& path, std::string_view cause) {
  return Error(ErrorCode::kNotFound, Action::kFixInput, fmt::format("{} {}", path, cause),
               "back up each key again: that makes a new one");
}

Result<SecretBytes> LoadSecret(const std::string& state_dir, const char* name) {
  const std::string path = fmt::format("{}/{}", state_dir, name);
  const auto unavailable = [&](std::string_view cause) {
    // A file of the state is the store's trouble, not a device's.
    return Error(name == std::string_view(kAnchorAuthFile) ? ErrorCode::kAgentKeyUnavailable
                                                           : ErrorCode::kStoreUnavailable,
                 Action::kCallOperator, fmt::format("{} {}", path, cause),
                 "put it back from a copy; without one, restore the keys, and escrow them anew "
                 "under the new agent that 'keyescrow init --state DIR' makes");
  };
  const auto status = store::CheckPrivateFile(path);
  if (!status && status.error().code() == ErrorCode::kNotFound) return unavailable("is not there");
  RETURN_IF_ERROR(status);
  const File file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.ok()) return CannotRead(path, errno);
  // One byte more than there should be: a longer file is refused.
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::Allocate(kSecretBytes + 1));
  const auto buffer = secret.ExposeMutable();
  std::size_t size = 0;
  for (ssize_t count = 1; count != 0 && size < buffer.size();) {
    count = read(file.get(), buffer.data() + size, buffer.size() - size);
    if (count < 0 && errno != EINTR) return CannotRead(path, errno);
    if (count > 0) size += static_cast<std::size_t>(count);
  }
  if (size != kSecretBytes) {
    constexpr std::string_view kWrongSize = "is not 32 bytes long";
    return name == std::string_view(kFingerprintKeyFile) ? FingerprintKeyLost(path, kWrongSize)
                                                         : unavailable(kWrongSize);
  }
  secret.Truncate(kSecretBytes);
  return secret;
}

// WriteState fills the state folder; the identity, by which it is one, comes last.
Status WriteState(const std::string& state_dir, const AgentIdentity& identity,
                  const AgentSecrets& secrets) {
  RETURN_IF_ERROR(store::SqliteStore::Create(state_dir));
  RETURN_IF_ERROR(WritePrivateFile(state_dir, kSeedFile, secrets.ed25519_seed.Expose()));
  if (!secrets.p256_scalar.empty()) {
    RETURN_IF_ERROR(WritePrivateFile(state_dir, kScalarFile, secrets.p256_scalar.Expose()));
  }
  if (!secrets.tpm_auth.empty()) {
    RETURN_IF_ERROR(WritePrivateFile(state_dir, kTpmAuthFile, secrets.tpm_auth.Expose()));
  }
  if (!secrets.fingerprint_key.empty()) {
    RETURN_IF_ERROR(
        WritePrivateFile(state_dir, kFingerprintKeyFile, secrets.fingerprint_key.Expose()));
  }
  return WriteAgentIdentity(state_dir, identity);
}

// RemoveMade takes away what an init that failed (a full disk) made in a folder of its own making.
void RemoveMade(const std::string& state_dir) {
  std::vector<std::string> names;
  for (const char* name :
       {kIdentityFile, kSeedFile, kScalarFile, kTpmAuthFile, kFingerprintKeyFile}) {
    names.push_back(name);
    names.push_back(std::string(name) + ".new");
  }
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    names.push_back(std::string(store::kStoreFileName) + suffix);
  }
  for (const std::string& name : names) unlink(fmt::format("{}/{}", state_dir, name).c_str());
  rmdir(state_dir.c_str());
}

}  // namespace

const P256Point& UnsetPoint() {
  // SP 800-186, 3.2.1.3: the base point of P-256.
  static const P256Point point =
      *P256Point::FromXy(*DecodeBase64Url("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY"),
                         *DecodeBase64Url("T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"));
  return point;
}

Status CreateAgentState(const std::string& state_dir, const AgentIdentity& identity,
                        const AgentSecrets& secrets) {
  ASSIGN_OR_RETURN(const bool made, MakeFolder(state_dir));
  RETURN_IF_ERROR(store::CheckStateFolder(state_dir));
  ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(state_dir));
  struct stat info {};
  if (lstat(fmt::format("{}/{}", state_dir, kIdentityFile).c_str(), &info) == 0) {
    return Error(ErrorCode::kAlreadyInitialized, Action::kFixInput,
                 fmt::format("there is a state in {} already", state_dir),
                 "use it, or name another folder with --state");
  }
  // The store comes first: one that holds entries stops us before a key of its log is overwritten,
  // and keys without a store are not what an interrupted init left.
  const auto is_there = [&](std::string_view name) {
    return lstat(fmt::format("{}/{}", state_dir, name).c_str(), &info) == 0;
  };
  for (const char* name : {kSeedFile, kScalarFile, kTpmAuthFile}) {
    if (!is_there(name) || is_there(store::kStoreFileName)) continue;
    return Error(ErrorCode::kAlreadyInitialized, Action::kFixInput,
                 fmt::format("{}/{} is the key of a state whose {} and {} are lost", state_dir,
                             name, kIdentityFile, store::kStoreFileName),
                 "put them back from a copy, or name another folder with --state; nothing was "
                 "changed");
  }
  Status created = WriteState(state_dir, identity, secrets);
  if (!created && made) RemoveMade(state_dir);
  return created;
}

Status WriteAgentIdentity(const std::string& state_dir, const AgentIdentity& identity) {
  return WritePrivateFile(state_dir, kIdentityFile, AsBytes(IdentityText(identity)));
}

Result<AgentIdentity> LoadAgentIdentity(const std::string& state_dir) {
  RETURN_IF_ERROR(store::CheckStateFolder(state_dir));
  const std::string path = fmt::format("{}/{}", state_dir, kIdentityFile);
  const auto status = store::CheckPrivateFile(path);
  if (!status && status.error().code() == ErrorCode::kNotFound) {
    struct stat info {};
    const std::string store = fmt::format("{}/{}", state_dir, store::kStoreFileName);
    if (lstat(store.c_str(), &info) == 0) {
      return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                   fmt::format("{} is lost: {} is there without it", path, store),
                   std::string(kIdentityLost) +
                       "; where an init was interrupted, run keyescrow init again, which "
                       "overwrites no entry");
    }
    return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                 fmt::format("there is no state in {}", state_dir), "run keyescrow init");
  }
  RETURN_IF_ERROR(status);
  return ReadAgentIdentity(state_dir);
}

Result<AgentIdentity> ReadAgentIdentity(const std::string& state_dir) {
  const std::string path = fmt::format("{}/{}", state_dir, kIdentityFile);
  ASSIGN_OR_RETURN(const Bytes text, ReadAll(path, kMaxIdentityBytes));
  const auto json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) return IdentityDamaged(path, "it is not a JSON object");
  const auto schema = json.find("schema");
  if (schema == json.end() || !schema->is_number_integer()) {
    return IdentityDamaged(path, "it has no schema");
  }
  if (schema->get<int>() > kIdentitySchema) {
    return Error(
        ErrorCode::kStoreNewerSchema, Action::kFixInput,
        fmt::format("{} was written by a newer version", path),
        "install the keyescrow that wrote it, or a newer one; this is version " KEYESCROW_VERSION);
  }
  auto identity = ReadIdentity(json);
  if (!identity) return IdentityDamaged(path, "a member is missing or malformed");
  // What it adds up to was fixed at init: a member that was changed since is not whom the log
  // knows.
  if (identity->origin != audit::LogOrigin(identity->host, identity->Thumbprint())) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 fmt::format("{} contradicts itself: the log {} is not that of the host {} and the "
                             "agent key {}",
                             path, identity->origin, identity->host, identity->Thumbprint()),
                 kIdentityLost);
  }
  return std::move(*identity);
}

Result<SecretBytes> LoadEd25519Seed(const std::string& state_dir) {
  return LoadSecret(state_dir, kSeedFile);
}
Result<SecretBytes> LoadAgentScalar(const std::string& state_dir) {
  return LoadSecret(state_dir, kScalarFile);
}
Result<SecretBytes> LoadAgentTpmAuth(const std::string& state_dir) {
  return LoadSecret(state_dir, kTpmAuthFile);
}

Result<SecretBytes> LoadFingerprintKey(const std::string& state_dir) {
  const std::string path = fmt::format("{}/{}", state_dir, kFingerprintKeyFile);
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0 && errno == ENOENT) {
    return FingerprintKeyLost(path, "is not there");
  }
  return LoadSecret(state_dir, kFingerprintKeyFile);
}

Result<SecretBytes> EnsureFingerprintKey(const std::string& state_dir, RandomSource& random) {
  auto key = LoadFingerprintKey(state_dir);
  if (key || key.error().code() != ErrorCode::kNotFound) return key;
  const File folder(open(state_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.ok()) return WriteError(state_dir, errno);
  while (flock(folder.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return WriteError(state_dir, errno);
  }
  key = LoadFingerprintKey(state_dir);  // another process may have been first
  if (key || key.error().code() != ErrorCode::kNotFound) return key;
  ASSIGN_OR_RETURN(SecretBytes made, RandomSecret(random, kSecretBytes));
  RETURN_IF_ERROR(WritePrivateFile(state_dir, kFingerprintKeyFile, made.Expose()));
  return made;
}

Result<SecretBytes> LoadAnchorAuth(const std::string& state_dir) {
  return LoadSecret(state_dir, kAnchorAuthFile);
}

Result<SecretBytes> MakeAnchorAuth(const std::string& state_dir, RandomSource& random) {
  struct stat info {};
  if (lstat(fmt::format("{}/{}", state_dir, kAnchorAuthFile).c_str(), &info) == 0) {
    return LoadAnchorAuth(state_dir);
  }
  ASSIGN_OR_RETURN(SecretBytes auth, RandomSecret(random, kSecretBytes));
  RETURN_IF_ERROR(WritePrivateFile(state_dir, kAnchorAuthFile, auth.Expose()));
  return auth;
}

Result<StateLock> StateLock::Take(const std::string& state_dir) {
  const int folder = open(state_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return WriteError(state_dir, errno);
  StateLock lock(folder);
  if (flock(folder, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      return Error(ErrorCode::kStoreBusy, Action::kRetry,
                   fmt::format("another init or anchor works in {}", state_dir),
                   "wait for it to end");
    }
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      fmt::format("{} cannot be locked", state_dir),
                      "put the state folder on a local file system: this one has no locks", errno);
  }
  return lock;
}

StateLock::~StateLock() {
  if (folder_ >= 0) close(folder_);
}

Result<FileSigner> FileSigner::Load(const std::string& state_dir, const AgentIdentity& identity) {
  ASSIGN_OR_RETURN(const SecretBytes scalar, LoadAgentScalar(state_dir));
  auto key = P256KeyPair::FromScalar(scalar);
  if (!key || !(key->Public() == identity.p256)) {
    return Error(ErrorCode::kStoreUnavailable, Action::kCallOperator,
                 fmt::format("{}/{} is not the key of {}", state_dir, kScalarFile, kIdentityFile),
                 "put both back from the same copy");
  }
  return FileSigner(std::move(*key));
}

}  // namespace keyescrow::agent
