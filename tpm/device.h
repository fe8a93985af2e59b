// Device: this host's TPM 2.0, over a TCTI loader string, with a deadline for every command.
//
// One connection, one storage root key (SRK), no object and no session left behind after Close().
// Used from one thread. No type of tpm2-tss appears here; the libraries are loaded when the first
// Device is opened, so that a program without them starts (kTpmUnavailable names the package).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "tpm/transport.h"

namespace keyescrow::tpm {

struct DeviceOptions {
  // TCTI loader string. "": device:/dev/tpmrm0 if that file exists. "none": there is no TPM.
  std::string tcti{};
  // The longest wait for one command, retries included. After the first timeout the device is dead
  // for the process: every later call returns kTpmTimeout at once.
  int command_deadline_ms = 5000;
  // TPM2B_PUBLIC of this host's SRK, 92 bytes, as StorageParent() returned it at `init`; or empty.
  // With it no ReadPublic is sent, and sessions are salted to the pinned key alone.
  Bytes pinned_srk{};
  RandomSource* random = &SystemRandom();
  TransportDecorator decorate{};  // tests only; empty: none
};

class Device {
 public:
  // Open connects; it sends no command. Errors: kTpmUnavailable, kTpmTimeout, kMemoryLockLimit.
  static Result<std::shared_ptr<Device>> Open(DeviceOptions options);

  // The destructor calls Close() and drops its error.
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // StorageParent returns this TPM's SRK as a TPM2B_PUBLIC of 92 bytes. No command when pinned;
  // else ReadPublic(0x81000001), and CreatePrimary where that handle is empty or holds another key.
  // Errors: kTpmOwnerAuth, kTpmSrkUntrusted, kTpmBusy, kTpmTimeout, kTpmUnavailable.
  Result<Bytes> StorageParent();

  // PersistSrk puts the SRK at 0x81000001 if that handle is empty, and leaves any other key there
  // alone (the SRK then stays transient, made again by each process). Used by `init`.
  // Errors: as StorageParent.
  Status PersistSrk();

  // Inspect reads the state without authorisation; 3 commands.
  Result<envelope::TpmState> Inspect();

  // Close flushes a transient SRK. The device can be used again after it.
  Status Close();

  class Impl;
  Impl& impl() { return *impl_; }

 private:
  explicit Device(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::tpm
