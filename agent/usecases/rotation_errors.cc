#include "agent/usecases/rotation_errors.h"

#include <fmt/format.h>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/backup_batch.h"

namespace keyescrow::agent {
namespace {

using store::RotationRecord;
using store::RotationStep;

constexpr int kExitWrongFactor = 3;
constexpr int kExitLockedOut = 6;

// HintUnresolved: the declared file shows by itself which version is in use, wherever the key went.
std::string HintUnresolved(const Agent& agent, const RotationRecord& record, const HeldKey& held) {
  const std::string declared = PlaceOf(agent, record.key_name, "");
  const auto location = ParseLocation(declared.empty() ? "-" : declared);
  const std::string file = location ? (*location)->FilePath() : "";
  const std::string abandon = fmt::format(
      "roll back with 'keyescrow rotate {} --abandon'; both versions can be restored by --version",
      record.key_name);
  if (!held.remedy.empty()) {
    return fmt::format(
        "{}; if it is gone for good, look which key the application has: hand "
        "version {} over again with --apply CMD or --to SINK, or {}",
        held.remedy, record.key_version, abandon);
  }
  if (file.empty() || PlaceOf(agent, record.key_name, record.sink) != declared) {
    return fmt::format(
        "look which key the application has; then hand version {} over again with --apply CMD or "
        "--to SINK, or {}",
        record.key_version, abandon);
  }
  return fmt::format(
      "look which key the application has; if it is version {}, put it there with 'keyescrow "
      "restore {} --version {} --to {} --replace', and 'keyescrow rotate {}' confirms it; if not, "
      "hand it over again with --apply CMD or --to SINK, or {}",
      record.key_version, record.key_name, record.key_version, file, record.key_name, abandon);
}

// WhyUnresolved: what stands at the key's place, as the cause that Unresolved ends with.
std::string WhyUnresolved(const HeldKey& held) {
  switch (held.held) {
    case Held::kOld: return held.where + " still has the old key";
    case Held::kOther: return held.where + " holds neither of the two keys";
    case Held::kNothing: return "there is no key at " + held.where;
    default: return held.why_not;
  }
}

}  // namespace

Error Unresolved(const Agent& agent, const RotationRecord& record, const HeldKey& held,
                 bool interrupted) {
  std::string what = fmt::format("version {} of {} may have been handed over", record.key_version,
                                 record.key_name);
  if (record.step == RotationStep::kHandedOver) {
    what = fmt::format("version {} of {} was handed over", record.key_version, record.key_name);
  } else if (interrupted) {
    what = fmt::format("the rotation of {} was interrupted {}", record.key_name, StepText(record));
  }
  return Error(
      ErrorCode::kFindings, Action::kCallOperator,
      fmt::format("which key is in use is not known: {}, and {}", what, WhyUnresolved(held)),
      HintUnresolved(agent, record, held));
}

Error IsInUse(const RotationRecord& record, const HeldKey& held) {
  return Error(
      ErrorCode::kFindings, Action::kFixInput,
      fmt::format("{} holds version {}: it is in use", held.where, record.key_version),
      fmt::format("put version {} back there first: 'keyescrow restore {} --version {} --to {} "
                  "--replace'; or let 'keyescrow rotate {}' confirm it",
                  record.old_version, record.key_name, record.old_version,
                  held.where.starts_with('/') ? held.where : "SINK", record.key_name));
}

std::string WhyNotProven(std::string text, const Refusals& refusals) {
  for (const auto& [path_id, error] : refusals) text += "; " + path_id + ": " + error.message();
  return text;
}

Error NotHandedOver(const RotationRecord& record, const std::vector<PathProof>& paths,
                    const Refusals& refusals) {
  const std::string message = WhyNotProven(
      fmt::format("version {} was escrowed and not handed over, so it was abandoned, and version "
                  "{} stays in use: {}",
                  record.key_version, record.old_version, NotRecoverable(paths)),
      refusals);
  for (const auto& [path_id, error] : refusals) {
    const int exit = ErrorCodeExitStatus(error.code());
    if (exit != kExitWrongFactor && exit != kExitLockedOut) continue;
    return Error(error.code(), error.action(), message, error.hint());
  }
  std::string hint = "give the factors of a path that needs no tpm, and rotate again";
  for (const PathProof& path : paths) {
    if (path.expression.find(" of (") == std::string::npos) continue;
    hint = fmt::format(
        "have its officers prove a path with 'keyescrow drill {} --via {}', and rotate again; or "
        "have them here, and add --prove {}",
        record.key_name, path.path_id, path.path_id);
    break;
  }
  return Error(ErrorCode::kFindings, Action::kReauthenticate, message, hint);
}

}  // namespace keyescrow::agent
