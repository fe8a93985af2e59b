// The keys of a rotation: where the new one and the old one come from, and whether the place where
// the new one is to go may be written.
#pragma once

#include <optional>
#include <string>

#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/rotate.h"
#include "agent/usecases/secrets.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

class RotationKeys {
 public:
  // All outlive it.
  RotationKeys(Agent& agent, const RotateRequest& request, Secrets& secrets, Progress& progress)
      : agent_(agent), request_(request), secrets_(secrets), progress_(progress) {}

  // CheckSink finds what would make the hand-over fail before anything is escrowed. `again`: the
  // key may be there already. Errors: kDestination*, CheckStands'.
  Status CheckSink(const store::RotationRecord& record, const std::string& sink, bool again);
  // CheckStands: a key at a file sink that nobody escrowed is not put aside, and a volume that is
  // not that of the version in use gets no keyslot. Where no fingerprint tells of a file, a version
  // is opened and compared. Errors: kDestinationOtherKey; Open's.
  Status CheckStands(const store::RotationRecord& record, const std::string& sink);
  // CheckNoVolumeKey: the volume key of a LUKS volume is not replaced by a rotation.
  // Errors: kUsage.
  Status CheckNoVolumeKey(const store::RotationRecord& record, const std::string& place);

  // New reads or makes the new key: without a size as long as the one in use, 64 bytes at a LUKS
  // volume. Errors: kUsage where it is an escrowed one, or its size cannot be known; kSource*.
  Result<SecretBytes> New();

  // Old is what stands at the declared source, if that is the version in use; else the version is
  // opened. Errors: kDestinationOtherKey where the source holds other bytes; Open's.
  Result<SecretBytes> Old(const store::RotationRecord& record);

  // SeenOld is the fingerprint of the old version where CheckStands opened it, and saw it at
  // `sink`.
  std::optional<store::FingerprintRecord> SeenOld(const store::RotationRecord& record,
                                                  const std::string& sink) const;

  // Open recovers a version by a path, as a restore does and with its entries in the log.
  Result<SecretBytes> Open(const std::string& key_name, std::uint32_t version);

 private:
  static Status CheckPrevious(const std::string& key_name, const std::string& path);
  Status CheckIsNew(const SecretBytes& key);
  // CheckByOpening compares the file with the versions themselves. Errors: CheckStands'.
  Status CheckByOpening(const store::RotationRecord& record, const std::string& path);

  Agent& agent_;
  const RotateRequest& request_;
  Secrets& secrets_;
  Progress& progress_;
  SecretBytes seen_old_;  // empty: CheckStands opened nothing, or it is not what stands there
};

}  // namespace keyescrow::agent
