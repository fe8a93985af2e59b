#include "agent/usecases/put_aside.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <utility>

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/file_location.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/fingerprint.h"

namespace keyescrow::agent {
namespace {

bool MustStop(const Error& error) {
  return error.code() == ErrorCode::kMemoryLockLimit || error.code() == ErrorCode::kOutOfMemory;
}

// Compare finds the version that has these bytes. One that was escrowed without a fingerprint, or
// under a fingerprint.key that was lost, may be it as well.
Status Compare(Agent& agent, const SecretBytes& key, PutAside& aside) {
  const std::string& name = aside.record.key_name;
  const std::string not_known = "whether a version of " + name + " has its bytes is not known: ";
  const auto fingerprinter = Fingerprinter::Load(agent.environment().state_dir);
  if (!fingerprinter) {
    if (fingerprinter.error().code() != ErrorCode::kNotFound) return fingerprinter.error();
    aside.why_not = not_known + "the key of the fingerprints (fingerprint.key) was lost";
    return Ok();
  }
  store::EscrowStore::EnvelopeQuery query;
  query.key_name = name;
  std::vector<std::uint32_t> versions;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    versions.push_back(record.key_version);
    return true;
  }));
  aside.why_not = "no escrowed version of " + name + " has its bytes";
  for (const std::uint32_t version : versions) {
    ASSIGN_OR_RETURN(const auto row, agent.store().FindFingerprint(name, version));
    if (!row || !fingerprinter->Made(*row)) {
      aside.why_not =
          fmt::format("{}version {} was escrowed without a fingerprint that can be compared",
                      not_known, version);
    } else if (fingerprinter->Matches(*row, key)) {
      aside.version = version;
      aside.why_not.clear();
      return Ok();
    }
  }
  return Ok();
}

Error NothingThere(Agent& agent, const std::string& sink, const std::string& path) {
  const auto rotations = agent.store().Rotations("");
  if (!rotations) return rotations.error();
  for (const store::RotationRecord& rotation : *rotations) {
    const auto place = ParseLocation(rotation.sink);
    if (!rotation.IsOpen() || path.empty() || !place || (*place)->FilePath() != path) continue;
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 "a rotation of " + rotation.key_name + " is under way, and what lies beside " +
                     path + " is its old key",
                 "finish it with 'keyescrow rotate " + rotation.key_name + "'");
  }
  return Error(ErrorCode::kNotFound, Action::kFixInput,
               "no previous generation of \"" + sink + "\" is known here",
               "'keyescrow status' lists those that are");
}

}  // namespace

Result<PutAside> LookAtPutAside(Agent& agent, const store::DestinationRecord& record) {
  PutAside aside;
  aside.record = record;
  const auto file = ReadKeyFile(record.previous_path);
  if (file) {
    RETURN_IF_ERROR(Compare(agent, file->key, aside));
    return aside;
  }
  if (MustStop(file.error())) return file.error();
  struct stat status {};
  aside.is_there = file.error().code() != ErrorCode::kNotFound ||
                   lstat(record.previous_path.c_str(), &status) == 0;
  aside.why_not = "whether a version of " + record.key_name +
                  " has its bytes is not known: " + file.error().message();
  return aside;
}

Result<PutAside> FindPutAside(Agent& agent, const std::string& sink) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  const std::string path = AbsolutePath(location->FilePath());
  ASSIGN_OR_RETURN(const auto destinations, agent.store().Destinations());
  for (const store::DestinationRecord& record : destinations) {
    // Older versions recorded the path as it was typed.
    const bool is_it = record.path == path || record.path == location->FilePath();
    if (path.empty() || !is_it || record.previous_path.empty()) continue;
    return LookAtPutAside(agent, record);
  }
  return NothingThere(agent, sink, path);
}

Result<PutAside> DiscardPrevious(Agent& agent, const std::string& sink, bool only_copy_too) {
  ASSIGN_OR_RETURN(const PutAside listed, FindPutAside(agent, sink));
  const store::DestinationRecord& record = listed.record;
  RETURN_IF_ERROR(agent.store().CheckWritable());
  ASSIGN_OR_RETURN(const FileReplacement previous, FileReplacement::Open(record.previous_path));
  // A hand-over held that lock, and may have put another key there: what is removed is looked at.
  ASSIGN_OR_RETURN(PutAside aside, LookAtPutAside(agent, record));
  struct stat found {};
  ASSIGN_OR_RETURN(aside.is_there, previous.Inspect(&found));
  if (!aside.is_there && !record.previous_path.starts_with('/')) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 record.previous_path + " is not in this folder",
                 "run the command in the folder in which the key was restored");
  }
  if (aside.MayBeTheOnlyCopy() && !only_copy_too) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "what was put aside may be the only copy: " + aside.why_not,
                 "add --confirm " + record.key_name);
  }
  if (aside.is_there) RETURN_IF_ERROR(previous.RemoveExisting());
  audit::Event event;
  event.type = audit::EventType::kKeyDestroyed;
  event.key =
      audit::EventKey{record.key_name, aside.is_there ? aside.version.value_or(record.key_version)
                                                      : record.key_version};
  event.reason = !aside.is_there ? "previous generation of the destination was gone already"
                 : aside.version
                     ? "previous generation of the destination discarded"
                     : "previous generation of the destination discarded: " + aside.why_not;
  store::Change change;
  change.removed_destinations.push_back(record.path);
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return aside;
}

}  // namespace keyescrow::agent
