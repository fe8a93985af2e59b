// LuksVolume: what libcryptsetup does with one LUKS2 volume: a block device, an image or a detached
// header. Header operations on an image need no root and no device-mapper.
//
// libcryptsetup keeps the volume key and passphrases in memory of its own while a call lasts, and
// wipes it; what comes out of it lies in SecretBytes. It takes the lock of the header for each
// change and waits for other processes that hold it. A change is written to the second header and
// the first, synced, the keyslot's area before both: killed in between, the volume has the old
// keyslots or the new ones.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/key_locations/luks_header.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

struct crypt_device;

namespace keyescrow::agent {

struct Cryptsetup;

class LuksVolume {
 public:
  // Open reads the header, then loads libcryptsetup. Errors: ReadLuksHeader's; kInvalidLocation
  // while the volume is being re-encrypted; kUnsupportedHere without it.
  static Result<LuksVolume> Open(const std::string& path);
  LuksVolume(LuksVolume&& other) noexcept = default;
  LuksVolume& operator=(LuksVolume&& other) noexcept = default;
  ~LuksVolume() = default;

  const std::string& path() const { return path_; }
  // header: as it was when the volume was opened, or Reload last called.
  const LuksHeader& header() const { return header_; }
  // Reload reads what is on the disk now.
  Status Reload();

  // VolumeKey returns the volume key. `unlock` is the passphrase of a keyslot, byte for byte as
  // `cryptsetup --key-file` takes it; or that and one LF; or the volume key itself. Blocks for the
  // cost of each keyslot that is tried. Errors: kWrongPassword.
  Result<SecretBytes> VolumeKey(const SecretBytes& unlock);
  Result<bool> IsVolumeKey(const SecretBytes& key);

  // FindKeyslot returns the keyslot that `key` opens; cheap ones are tried first.
  Result<std::optional<unsigned>> FindKeyslot(const SecretBytes& key);
  Result<bool> Opens(unsigned keyslot, const SecretBytes& key);

  // CheckRoom: Errors: kDestinationFull where the header holds no further keyslot.
  Status CheckRoom() const;

  // AddKeyslot adds a keyslot with `key` as its passphrase and returns its number, durable.
  // `random_key`: the key has at least 32 random bytes, which need no stretching (PBKDF2 with 1000
  // iterations, as systemd-cryptenroll does); else libcryptsetup's own costs, some seconds.
  // Errors: kDestinationFull.
  Result<unsigned> AddKeyslot(const SecretBytes& volume_key, const SecretBytes& key,
                              bool random_key);
  // RemoveKeyslot wipes the keyslot's area and takes it out of the header.
  Status RemoveKeyslot(unsigned keyslot);

 private:
  struct Free {
    const Cryptsetup* library;
    void operator()(crypt_device* device) const;
  };
  LuksVolume(std::string path, LuksHeader header, const Cryptsetup& library)
      : path_(std::move(path)),
        header_(std::move(header)),
        library_(&library),
        log_(std::make_unique<std::string>()) {}
  Error Failed(const char* step, int result) const;
  Result<int> TryKeyslot(int keyslot, const SecretBytes& key);

  std::string path_;
  LuksHeader header_;
  const Cryptsetup* library_;
  std::unique_ptr<std::string> log_;  // the library's last error; the device points to it
  std::unique_ptr<crypt_device, Free> device_{nullptr, Free{nullptr}};
};

}  // namespace keyescrow::agent
