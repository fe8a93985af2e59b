// What becomes of the version in use when another one of its key is escrowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit/event.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/fingerprint.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

// RotationStart: that the backup begins a rotation. The new version is then not in use yet, and the
// record of its rotation is committed with it.
struct RotationStart {
  std::uint32_t old_version = 0;
  std::string sink;     // SINK, or ""
  std::string command;  // of --apply, or ""
};

// NextKeyVersion is one above all that ever were. It refuses while a rotation is under way: which
// of two new versions is then in use could not be told. Errors: kStoreBusy.
Result<std::uint32_t> NextKeyVersion(Agent& agent, const std::string& key_name);

// Succession: a rotation leaves the version in use where it is until it is confirmed; a backup
// takes its place at once, and counts as a rotation where its bytes are others.
struct Succession {
  std::optional<store::RotationRecord> rotation;
  std::optional<std::uint32_t> in_use;  // as it was seen; another one at the commit fails that
  std::optional<std::uint32_t> superseded;
  bool other_bytes = false;   // than the superseded version has
  bool not_compared = false;  // no fingerprint tells whether they are
  // finding: what a person should know of the bytes that take its place, or "".
  std::string finding = {};
};

// FindSuccession looks what `version`, which NextKeyVersion gave, will succeed. Whoever escrows the
// key meanwhile takes that number, or comes into use, so that the commit of this one fails. Errors:
// kStoreBusy where one as high is there, or the version in use is not the one that the rotation
// began from; kStore*.
Result<Succession> FindSuccession(Agent& agent, const std::string& key_name, std::uint32_t version,
                                  const SecretBytes& key, const Fingerprinter& fingerprinter,
                                  const std::optional<RotationStart>& rotation);

// AddSuccession adds it to the commit that escrows `version`.
void AddSuccession(const Succession& succession, const std::string& key_name, std::uint32_t version,
                   std::vector<audit::Event>& events, store::Change& change);

}  // namespace keyescrow::agent
