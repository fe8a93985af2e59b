// backup --all: every declared key. Results are written as they come, so that memory does not grow
// with the number of keys.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/cli/commands/backup_output.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/backup_batch.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/token_names.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kBarWidth = 20;
constexpr std::size_t kKeysPerStep = 8;
constexpr std::size_t kMaxTold = 32;  // different findings; memory does not grow with the keys

std::string Bar(std::size_t done, std::size_t total) {
  const std::size_t filled = total == 0 ? 0 : done * kBarWidth / total;
  return "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "]";
}

// Report writes a line for each key, or the element of a document, and remembers what decides the
// exit status: the first error, else a finding.
class Report {
 public:
  explicit Report(Session& session) : session_(session) {
    for (const DeclaredKey& key : session.config().keys) {
      width_ = std::max(width_, key.name.size());
    }
  }

  Status Begin() {
    if (!session_.terminal().json()) return Ok();
    return Write("{\n  \"schema\": \"keyescrow/backup-all/1\",\n  \"num_declared\": " +
                 std::to_string(session_.config().keys.size()) + ",\n  \"keys\": [");
  }

  Status Add(const std::string& key_name, const Result<BackupResult>& result) {
    session_.progress().Pause();
    std::string outcome = "failed";
    if (result) {
      ++num_escrowed_;
      outcome = result->portable_proven ? "proven" : result->covered ? "covered" : "not proven";
      if (!result->Recoverable() && status_ == kExitDone) status_ = kExitFindings;
    } else if (status_ == kExitDone || status_ == kExitFindings) {
      status_ = ExitStatus(result.error());
    }
    if (session_.terminal().json()) {
      Json item = Json::object();
      if (result) {
        item = BackupJson(*result);
      } else {
        item["key"] = {{"name", key_name}, {"version", nullptr}};
      }
      item["outcome"] = outcome;
      item["error"] = result ? Json(nullptr) : ErrorJson(result.error());
      RETURN_IF_ERROR(Write((is_first_ ? "\n    " : ",\n    ") +
                            item.dump(-1, ' ', false, Json::error_handler_t::replace)));
    } else {
      const std::string version = result ? std::to_string(result->key_version) : "-";
      const std::string name = EscapeForTerminal(key_name);
      RETURN_IF_ERROR(Write(fmt::format("{:<{}}  {:>7}  {}\n", name, width_, version, outcome)));
      if (!result) session_.terminal().PrintError(Error(result.error()).WithContext(key_name));
    }
    is_first_ = false;
    if (result) Tell(key_name, FindingsOf(*result));
    return Ok();
  }

  // AddKeyslot tells of the secret of a keyslot, which is escrowed and stands where it was put.
  Status AddKeyslot(const std::string& key_name, std::uint32_t version) {
    session_.progress().Pause();
    ++num_unchanged_;
    constexpr std::string_view outcome = "escrowed already";
    if (!session_.terminal().json()) {
      return Write(fmt::format("{:<{}}  {:>7}  {}\n", EscapeForTerminal(key_name), width_, version,
                               outcome));
    }
    Json item = Json::object();
    item["key"] = KeyJson(key_name, version);
    item["outcome"] = outcome;
    item["error"] = nullptr;
    RETURN_IF_ERROR(Write((is_first_ ? "\n    " : ",\n    ") +
                          item.dump(-1, ' ', false, Json::error_handler_t::replace)));
    is_first_ = false;
    return Ok();
  }

  // AddNotTried tells of a key that was not reached, since the store failed before.
  Status AddNotTried(const std::string& key_name) {
    ++num_not_tried_;
    if (!session_.terminal().json()) return Ok();  // they are counted
    Json item = Json::object();
    item["key"] = {{"name", key_name}, {"version", nullptr}};
    item["outcome"] = "not tried";
    item["error"] = nullptr;
    RETURN_IF_ERROR(Write((is_first_ ? "\n    " : ",\n    ") +
                          item.dump(-1, ' ', false, Json::error_handler_t::replace)));
    is_first_ = false;
    return Ok();
  }

  Result<int> Finish() {
    session_.progress().Pause();
    for (const auto& [finding, num_more] : told_) {
      if (num_more == 0) continue;
      session_.terminal().Warn(fmt::format(
          "the same for {}: {}",
          num_more == 1 ? std::string("another key") : fmt::format("{} more keys", num_more),
          finding));
    }
    if (session_.terminal().json()) {
      RETURN_IF_ERROR(Write("\n  ],\n  \"num_escrowed\": " + std::to_string(num_escrowed_) +
                            ",\n  \"num_unchanged\": " + std::to_string(num_unchanged_) +
                            ",\n  \"num_not_tried\": " + std::to_string(num_not_tried_) + "\n}\n"));
    } else {
      if (num_not_tried_ != 0) {
        RETURN_IF_ERROR(Write(
            fmt::format("not tried, since the store failed: {}\n", Count(num_not_tried_, "key"))));
      }
      RETURN_IF_ERROR(Write(fmt::format(
          "escrowed {} of {}{}\n", num_escrowed_,
          Count(session_.config().keys.size(), "declared key"),
          num_unchanged_ == 0
              ? ""
              : fmt::format("; {} a keyslot's secret, escrowed already", num_unchanged_))));
    }
    return status_;
  }

 private:
  // Tell warns of what was found; what was told of a key already is counted, and told at the end.
  void Tell(const std::string& key_name, const std::vector<std::string>& findings) {
    for (const std::string& finding : findings) {
      const auto told =
          std::ranges::find(told_, finding, &std::pair<std::string, std::size_t>::first);
      if (told != told_.end()) {
        ++told->second;
        continue;
      }
      session_.terminal().Warn(key_name + ": " + finding);
      if (told_.size() < kMaxTold) told_.emplace_back(finding, 0);
    }
  }
  Status Write(const std::string& text) { return session_.terminal().WriteResult(text); }

  Session& session_;
  std::size_t width_ = 3;
  std::size_t num_escrowed_ = 0;
  std::size_t num_not_tried_ = 0;
  std::size_t num_unchanged_ = 0;
  std::vector<std::pair<std::string, std::size_t>> told_;  // of how many more keys
  int status_ = kExitDone;
  bool is_first_ = true;
};

// TokensOfAll: what could ask for a PIN, over all keys; a key whose paths are wrong is told later.
Result<Secrets::TokenNames> TokensOfAll(Agent& agent, const BackupOptions& options,
                                        const std::vector<DeclaredKey>& keys) {
  Secrets::TokenNames names;
  for (const DeclaredKey& key : keys) {
    const auto paths =
        ChoosePaths(agent, key.name, options.paths.empty() ? key.paths : options.paths);
    if (!paths) continue;
    for (const envelope::PathOption& path : *paths) names.merge(TokensOf(path.expression));
  }
  return names;
}

}  // namespace

Result<int> BackupAll(const BackupOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const auto& keys = session.config().keys;
  if (keys.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is declared",
                 "declare one with 'keyescrow key add NAME --source SOURCE'");
  }
  bool reads_stdin = false;
  for (const DeclaredKey& key : keys) reads_stdin |= key.source == "-";
  ASSIGN_OR_RETURN(CliSecrets* const secrets,
                   session.OpenSecrets(options.secrets, reads_stdin ? "a declared source" : ""));
  RETURN_IF_ERROR(agent->store().CheckWritable());
  RETURN_IF_ERROR(secrets->MayAsk([&] { return TokensOfAll(*agent, options, keys); }));
  Report report(session);
  RETURN_IF_ERROR(report.Begin());
  std::size_t num_begun = 0;
  const auto begin_one = [&] {
    if (num_begun % kKeysPerStep == 0) {
      session.progress().Step(
          fmt::format("{} {} of {}", Bar(num_begun, keys.size()), num_begun, keys.size()));
    }
    ++num_begun;
  };
  const auto done = [&report](const std::string& name, Result<BackupResult> result) {
    return report.Add(name, result);
  };
  ASSIGN_OR_RETURN(UnattendedBackup unattended, UnattendedBackup::Begin(*agent, begin_one, done));
  for (const DeclaredKey& key : keys) {
    if (unattended.has_failed()) {
      RETURN_IF_ERROR(unattended.Flush());  // tells of those that were sealed in vain
      RETURN_IF_ERROR(report.AddNotTried(key.name));
      continue;
    }
    auto paths = ChoosePaths(*agent, key.name, options.paths.empty() ? key.paths : options.paths);
    // A LUKS2 volume is asked for more than its bytes, and may want to be unlocked.
    const bool is_volume = key.source.starts_with("luks:");
    if (paths && UnattendedBackup::Takes(*paths) && options.prove.empty() && !is_volume) {
      RETURN_IF_ERROR(unattended.Add(key, std::move(*paths), options.note));
      continue;
    }
    RETURN_IF_ERROR(unattended.Flush());
    if (unattended.has_failed()) {
      RETURN_IF_ERROR(report.AddNotTried(key.name));
      continue;
    }
    begin_one();
    if (is_volume) {
      ASSIGN_OR_RETURN(const auto keyslot, KeyslotInUse(*agent, key.name, key.source));
      if (keyslot) {
        RETURN_IF_ERROR(report.AddKeyslot(key.name, *keyslot));
        continue;
      }
    }
    const auto result = [&]() -> Result<BackupResult> {
      if (!paths) return paths.error();
      ASSIGN_OR_RETURN(const BackupRequest request,
                       MakeBackupRequest(options, key.name, key.source));
      return Backup(*agent, request, *secrets, session.progress());
    }();
    RETURN_IF_ERROR(report.Add(key.name, result));
  }
  RETURN_IF_ERROR(unattended.Flush());
  return report.Finish();
}

}  // namespace keyescrow::agent
