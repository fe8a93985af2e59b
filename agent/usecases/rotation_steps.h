// The durable steps of a rotation: what is committed before each of them, and how it ends.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/key_locations/key_location.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/rotate.h"
#include "agent/usecases/rotation_record.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

class RotationSteps {
 public:
  // All outlive it.
  RotationSteps(Agent& agent, const RotateRequest& request, Progress& progress)
      : agent_(agent), request_(request), progress_(progress) {
    result.key_name = request.key_name;
  }

  store::RotationRecord record;
  RotateResult result;

  // Commit makes a step durable, before it is taken. `how` is what RotationEvent's is.
  Status Commit(store::RotationStep step, audit::Outcome outcome, std::string_view how,
                store::Change change = {});
  // BeginHandOver commits kHandingOver, and where a volume's keyslot may come from it.
  Status BeginHandOver(std::string_view how, store::Change change = {});
  // RollBack ends the rotation: the old version is in use, the new one can be restored by its
  // number. It was not handed over, or is not where it was to go.
  Status RollBack(const std::string& why);
  // Abandon is RollBack where nobody looked whether the new key was handed over.
  Status Abandon(const std::string& why);
  // Confirm ends it: the new version is in use, as `by` has it, and the old one is superseded.
  Status Confirm(const HeldKey& held, const std::string& by);

  // Retire is the last step at a LUKS volume: the old version's keyslot is removed, now that the
  // new one is in use. Where the header does not tell which it is, it is seen by the old key, which
  // `open_old` gives. What stands in its way is a finding: the rotation is done. What a command
  // left is a finding as well.
  using OpenOld = std::function<Result<SecretBytes>()>;
  void Retire(const SecretBytes& new_key, const OpenOld& open_old);
  // RetireLeft does it for a rotation that was interrupted before this step; false where none was.
  Result<bool> RetireLeft();

  // TellOfLeftBehind: the key went elsewhere than it is known to live, where `status` may not look.
  void TellOfLeftBehind(const SecretBytes& new_key);

  // LookAt tells what stands where the new key was to go to.
  Result<HeldKey> LookAt(const std::string& sink, const SecretBytes* new_key);
  std::string Place(const std::string& sink) const;

  // Told says at once what became of the rotation that this call found: whatever comes after may
  // fail.
  void Told(const char* outcome);

 private:
  // End: `empty` is the place that was seen to have no keyslot of the new version, or "".
  Status End(const std::string& why, const std::string& empty);
  // AddPutAside records the old key that a hand-over which was killed put aside, so that it can be
  // discarded.
  Status AddPutAside(store::Change& change);
  void ForgetCommand();
  Status AddPlace(const HeldKey& held, store::Change& change);
  void TellOfDeclaredPlace(const std::string& declared, const SecretBytes& new_key);
  // KnownPlaces of an undeclared key: where its old version was seen.
  Result<std::vector<std::string>> KnownPlaces();
  // TellOfEdits: the old version's paths were edited after they were copied.
  void TellOfEdits();
  // UnlockedByOld: the unlock file has the old key. Who unlocks the volume by it would be locked
  // out once its keyslot is gone.
  Result<bool> UnlockedByOld();
  Result<bool> UnlockedBy(const std::function<bool(const SecretBytes&)>& is_old);
  Error KeyslotIsLeft() const;
  Status AddOldKeyslot(const KeyLocation& volume, std::optional<unsigned> new_keyslot,
                       store::Change& change);
  Status TryToRetire(const std::string& place, const SecretBytes& new_key, const OpenOld& open_old);
  Status Remove(KeyLocation& volume, const RetiredSecret& keyslot, const SecretBytes& new_key);
  // LogRetired: without a keyslot none was opened by the old key.
  Status LogRetired(std::optional<unsigned> keyslot, const std::string& volume);

  Agent& agent_;
  const RotateRequest& request_;
  Progress& progress_;
};

}  // namespace keyescrow::agent
