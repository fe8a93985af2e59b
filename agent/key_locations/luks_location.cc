#include "agent/key_locations/luks_location.h"

#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "agent/key_locations/cryptsetup.h"
#include "agent/key_locations/luks_volume.h"
#include "agent/key_locations/secret_file.h"

namespace keyescrow::agent {
namespace {

class LuksLocation final : public KeyLocation {
 public:
  LuksLocation(std::string path, std::string unlock_file)
      : path_(std::move(path)), unlock_file_(std::move(unlock_file)) {}

  Result<SecretBytes> Read() override {
    RETURN_IF_ERROR(Unlock());
    return SecretBytes::CopyOf(volume_key_->Expose());
  }

  Status CheckWritable() override {
    if (access(path_.c_str(), W_OK) != 0 && errno != ENOENT) {
      return ErrnoError(ErrorCode::kDestinationUnwritable, Action::kCheckSystemState,
                        "cannot write the header of " + path_,
                        "run as a user who may write it, as root for a device", errno);
    }
    return Unlock();
  }

  Status CheckRoom() override {
    RETURN_IF_ERROR(Unlock());
    return volume_->CheckRoom();
  }

  Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions& options) override {
    RETURN_IF_ERROR(Unlock());
    ASSIGN_OR_RETURN(const bool is_volume_key, volume_->IsVolumeKey(key));
    if (is_volume_key) return WriteOutcome{.already_same = true};
    if (options.volume_key) {
      return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
                   path_ +
                       " has another volume key than the escrowed one: it was re-encrypted, "
                       "formatted anew, or is another volume",
                   "a volume key never becomes a keyslot's secret; restore it to a file");
    }
    if (!options.random_key) {
      ASSIGN_OR_RETURN(const auto found, volume_->FindKeyslot(key));
      if (found) return WriteOutcome{.already_same = true, .keyslot = found};
    }
    ASSIGN_OR_RETURN(const unsigned keyslot,
                     volume_->AddKeyslot(*volume_key_, key, options.random_key));
    RETURN_IF_ERROR(volume_->Reload());
    ASSIGN_OR_RETURN(const bool opens, volume_->Opens(keyslot, key));
    if (!opens) {
      return Error(ErrorCode::kDestinationUnwritable, Action::kCallOperator,
                   "keyslot " + std::to_string(keyslot) + " of " + path_ +
                       " was written, and the key does not open it",
                   "look for errors of the disk in the kernel's log; the other keyslots are as "
                   "they were");
    }
    return WriteOutcome{.written = true, .keyslot = keyslot};
  }

  Result<bool> Retire(const RetiredSecret& retired, const SecretBytes& in_use) override {
    ASSIGN_OR_RETURN(LuksVolume volume, LuksVolume::Open(path_));
    ASSIGN_OR_RETURN(const bool is_there, IsThere(volume, retired));
    if (!is_there) return false;
    ASSIGN_OR_RETURN(const auto opened, volume.FindKeyslot(in_use));
    if (!opened || *opened == retired.keyslot) return NotRetired(retired);
    return Remove(volume, retired);
  }

  Result<bool> RetireBeside(const RetiredSecret& retired, const RetiredSecret& in_use) override {
    ASSIGN_OR_RETURN(LuksVolume volume, LuksVolume::Open(path_));
    ASSIGN_OR_RETURN(const bool is_there, IsThere(volume, retired));
    if (!is_there) return false;
    ASSIGN_OR_RETURN(const bool stays, IsThere(volume, in_use));
    if (!stays || in_use.keyslot == retired.keyslot) return NotRetired(retired);
    return Remove(volume, retired);
  }

  Result<std::optional<unsigned>> FindKeyslot(const SecretBytes& key) override {
    ASSIGN_OR_RETURN(LuksVolume volume, LuksVolume::Open(path_));
    return volume.FindKeyslot(key);
  }

  std::string Describe() const override { return "luks:" + path_; }
  std::string VolumePath() const override { return path_; }

 private:
  // IsThere tells whether it is that very keyslot: its number may have another secret now.
  Result<bool> IsThere(const LuksVolume& volume, const RetiredSecret& secret) const {
    if (volume.header().FindKeyslot(secret.keyslot) == nullptr) return false;
    ASSIGN_OR_RETURN(const Bytes32 hash, KeyslotHash(path_, volume.header(), secret.keyslot));
    return hash == secret.keyslot_hash;
  }

  Error NotRetired(const RetiredSecret& retired) const {
    return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
                 "the key that is to stay opens no other keyslot of " + path_ + ": keyslot " +
                     std::to_string(retired.keyslot) + " is not removed",
                 "hand that key over first; nothing was changed");
  }

  Result<bool> Remove(LuksVolume& volume, const RetiredSecret& retired) {
    RETURN_IF_ERROR(volume.RemoveKeyslot(retired.keyslot));
    volume_.reset();
    return true;
  }

  // Unlock has the volume key after the first call.
  Status Unlock() {
    if (!volume_) {
      ASSIGN_OR_RETURN(volume_, LuksVolume::Open(path_));
    }
    if (volume_key_) return Ok();
    if (unlock_file_.empty()) {
      return Error(ErrorCode::kSecretSourceMissing, Action::kFixInput,
                   "what unlocks " + path_ + " is not given",
                   "name a file with the passphrase of one of its keyslots, or with its volume "
                   "key: --luks-unlock-file FILE");
    }
    ASSIGN_OR_RETURN(const SecretBytes unlock, ReadWholeSecretFile(unlock_file_));
    ASSIGN_OR_RETURN(volume_key_, volume_->VolumeKey(unlock));
    return Ok();
  }

  std::string path_;
  std::string unlock_file_;
  std::optional<LuksVolume> volume_;
  std::optional<SecretBytes> volume_key_;
};

}  // namespace

Status CheckLibcryptsetup() {
  RETURN_IF_ERROR(LoadCryptsetup());
  return Ok();
}

std::unique_ptr<KeyLocation> MakeLuksLocation(std::string path, std::string unlock_file) {
  return std::make_unique<LuksLocation>(std::move(path), std::move(unlock_file));
}

}  // namespace keyescrow::agent
