#include "agent/key_locations/luks_volume.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/key_locations/cryptsetup.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxVolumeKeyBytes = 512;

const char* Characters(const SecretBytes& secret) {
  return reinterpret_cast<const char*>(secret.Expose().data());
}

// KeepError is the library's log: of its texts the last error is kept, for the message.
void KeepError(int level, const char* message, void* log) {
  if (level != CRYPT_LOG_ERROR || message == nullptr) return;
  std::string& text = *static_cast<std::string*>(log);
  text = message;
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
}

void Ignore(int /*level*/, const char* /*message*/, void* /*unused*/) {}

Error WrongUnlock(const std::string& path) {
  return Error(ErrorCode::kWrongPassword, Action::kReauthenticate,
               "the unlock file opens no keyslot of " + path + ", and is not its volume key",
               "name a key file with --luks-unlock-file that 'cryptsetup open --test-passphrase "
               "--key-file FILE " +
                   path + "' accepts");
}

}  // namespace

void LuksVolume::Free::operator()(crypt_device* device) const { library->free(device); }

Error LuksVolume::Failed(const char* step, int result) const {
  std::string message = fmt::format("cannot {} {}", step, path_);
  if (!log_->empty()) message += ": " + *log_;
  const bool rights = result == -EACCES || result == -EPERM || result == -EROFS;
  return ErrnoError(
      ErrorCode::kDestinationUnwritable, Action::kCheckSystemState, std::move(message),
      rights ? "run as a user who may write it, as root for a device"
             : "try 'cryptsetup luksDump " + path_ + "'; the volume has the keyslots that it had",
      -result);
}

Result<LuksVolume> LuksVolume::Open(const std::string& path) {
  ASSIGN_OR_RETURN(LuksHeader header, ReadLuksHeader(path));
  if (header.IsReencrypting()) {
    return Error(ErrorCode::kInvalidLocation, Action::kRetry, path + " is being re-encrypted",
                 "finish that first: 'cryptsetup reencrypt --resume-only " + path + "'");
  }
  ASSIGN_OR_RETURN(const Cryptsetup* library, LoadCryptsetup());
  LuksVolume volume(path, std::move(header), *library);
  RETURN_IF_ERROR(volume.Reload());
  return volume;
}

Status LuksVolume::Reload() {
  ASSIGN_OR_RETURN(header_, ReadLuksHeader(path_));
  log_->clear();
  // Before there is a device the library would print to standard error.
  library_->set_log_callback(nullptr, &KeepError, log_.get());
  crypt_device* device = nullptr;
  int result = library_->init(&device, path_.c_str());
  library_->set_log_callback(nullptr, &Ignore, nullptr);  // it outlives the text
  if (result < 0) return Failed("open", result);
  device_ = std::unique_ptr<crypt_device, Free>(device, Free{library_});
  library_->set_log_callback(device, &KeepError, log_.get());
  result = library_->load(device, CRYPT_LUKS2, nullptr);
  if (result < 0) return Failed("read the LUKS2 header of", result);
  return Ok();
}

Result<bool> LuksVolume::IsVolumeKey(const SecretBytes& key) {
  // Without any keyslot its size is not known.
  const int size = library_->get_volume_key_size(device_.get());
  if (size > 0 ? key.size() != static_cast<std::size_t>(size) : key.size() > kMaxVolumeKeyBytes) {
    return false;
  }
  const int result = library_->volume_key_verify(device_.get(), Characters(key), key.size());
  if (result == -EPERM || result == -ENOENT) return false;
  if (result < 0) return Failed("compare the volume key of", result);
  return true;
}

Result<SecretBytes> LuksVolume::VolumeKey(const SecretBytes& unlock) {
  ASSIGN_OR_RETURN(const bool is_key, IsVolumeKey(unlock));
  if (is_key) return SecretBytes::CopyOf(unlock.Expose());
  const int size = library_->get_volume_key_size(device_.get());
  if (size <= 0) return WrongUnlock(path_);  // there is no keyslot
  ASSIGN_OR_RETURN(SecretBytes key, SecretBytes::Allocate(static_cast<std::size_t>(size)));
  // With and without one LF at the end: editors and echo leave one.
  std::size_t length = unlock.size();
  for (int tries = 0; tries < 2 && length > 0; ++tries) {
    std::size_t key_size = key.size();
    const int result = library_->volume_key_get(device_.get(), CRYPT_ANY_SLOT,
                                                reinterpret_cast<char*>(key.ExposeMutable().data()),
                                                &key_size, Characters(unlock), length);
    if (result >= 0) {
      key.Truncate(key_size);
      return key;
    }
    if (result != -EPERM && result != -ENOENT) return Failed("unlock", result);
    if (unlock.Expose().back() != '\n') break;
    --length;
  }
  return WrongUnlock(path_);
}

// TryKeyslot returns the number of the keyslot that `key` opens, or -1.
Result<int> LuksVolume::TryKeyslot(int keyslot, const SecretBytes& key) {
  const int result = library_->activate_by_passphrase(device_.get(), nullptr, keyslot,
                                                      Characters(key), key.size(), 0);
  if (result == -EPERM || result == -ENOENT) return -1;
  if (result < 0) return Failed("try a keyslot of", result);
  return result;
}

Result<bool> LuksVolume::Opens(unsigned keyslot, const SecretBytes& key) {
  ASSIGN_OR_RETURN(const int found, TryKeyslot(static_cast<int>(keyslot), key));
  return found == static_cast<int>(keyslot);
}

Result<std::optional<unsigned>> LuksVolume::FindKeyslot(const SecretBytes& key) {
  std::vector<const LuksKeyslot*> slots;
  for (const LuksKeyslot& slot : header_.keyslots) {
    if (slot.opens_volume) slots.push_back(&slot);
  }
  std::stable_partition(slots.begin(), slots.end(),
                        [](const LuksKeyslot* slot) { return slot->kdf == "pbkdf2"; });
  for (const LuksKeyslot* slot : slots) {
    ASSIGN_OR_RETURN(const bool opens, Opens(slot->id, key));
    if (opens) return std::optional(slot->id);
  }
  return std::optional<unsigned>();
}

Status LuksVolume::CheckRoom() const {
  if (header_.HasRoom()) return Ok();
  return Error(ErrorCode::kDestinationFull, Action::kFixInput,
               "the header of " + path_ + " has no room for another keyslot",
               "'cryptsetup luksDump " + path_ +
                   "' lists the keyslots; remove one that nobody "
                   "needs with 'cryptsetup luksKillSlot'");
}

Result<unsigned> LuksVolume::AddKeyslot(const SecretBytes& volume_key, const SecretBytes& key,
                                        bool random_key) {
  RETURN_IF_ERROR(CheckRoom());
  if (random_key) {
    crypt_pbkdf_type least{};
    least.type = CRYPT_KDF_PBKDF2;
    least.hash = "sha512";
    least.iterations = 1000;  // the least that libcryptsetup takes
    least.flags = CRYPT_PBKDF_NO_BENCHMARK;
    const int result = library_->set_pbkdf_type(device_.get(), &least);
    if (result < 0) return Failed("set the costs of a keyslot of", result);
  }
  const int result =
      library_->keyslot_add_by_volume_key(device_.get(), CRYPT_ANY_SLOT, Characters(volume_key),
                                          volume_key.size(), Characters(key), key.size());
  if (result < 0) return Failed("add a keyslot to", result);
  return static_cast<unsigned>(result);
}

Status LuksVolume::RemoveKeyslot(unsigned keyslot) {
  const int result = library_->keyslot_destroy(device_.get(), static_cast<int>(keyslot));
  if (result < 0) return Failed("remove a keyslot of", result);
  return Ok();
}

}  // namespace keyescrow::agent
