// audit log, checkpoint, prove: what happened, and the proofs that it is all there.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/anchoring.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kChunkBytes = 64 * 1024;

// EntryJson is the entry's own JSON with its place in the log before it. An entry that does not
// parse is kept as text.
Json EntryJson(const LoggedEvent& logged) {
  Json entry = Json::object();
  entry["seq"] = logged.seq;
  entry["leaf_hash"] = EncodeBase64Url(logged.leaf_hash);
  const Json event = Json::parse(logged.line, nullptr, false);
  if (event.is_object()) {
    entry.update(event);
  } else {
    entry["line"] = logged.line;
  }
  return entry;
}

std::string Member(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string ActorText(const Json& entry) {
  const auto actor = entry.find("actor");
  if (actor == entry.end() || !actor->is_object()) return "-";
  const std::string name = Member(*actor, "name");
  std::string text = name.empty() ? "uid " + Member(*actor, "uid") : name;
  const std::string login = Member(*actor, "login_uid");
  if (!login.empty() && login != Member(*actor, "uid")) text += " (login uid " + login + ")";
  return text;
}

// EntryLine: sequence, time, type, outcome, key, paths, actor, and the reason where there is one.
std::string EntryLine(const Json& entry) {
  if (entry.contains("line")) {
    return fmt::format("{:>6}  unreadable: {}", Member(entry, "seq"), Member(entry, "line"));
  }
  std::string key = "-";
  if (const auto found = entry.find("key"); found != entry.end() && found->is_object()) {
    key = Member(*found, "name");
    if (found->contains("version")) key += " version " + Member(*found, "version");
  }
  std::string paths;
  if (const auto found = entry.find("paths"); found != entry.end() && found->is_array()) {
    for (const Json& path : *found) {
      std::string id = path.is_object() ? Member(path, "id") : "";
      if (id.empty() && path.is_object() && path.contains("factors")) {
        for (const Json& factor : path["factors"]) {
          if (factor.is_object()) id += (id.empty() ? "" : ", ") + Member(factor, "id");
        }
      }
      paths += (paths.empty() ? "" : ", ") + id;
    }
  }
  std::string outcome = Member(entry, "outcome");
  if (const std::string error = Member(entry, "error"); !error.empty()) outcome += " " + error;
  std::string line = fmt::format("{:>6}  {}  {:<18}  {}  {}  {}  by {}", Member(entry, "seq"),
                                 Member(entry, "time"), Member(entry, "type"), outcome, key,
                                 paths.empty() ? "-" : paths, ActorText(entry));
  if (const std::string reason = Member(entry, "reason"); !reason.empty()) {
    line += "  \"" + reason + "\"";
  }
  if (Member(entry, "source") == audit::kStatelessSource) {
    line += "  (imported from " + Member(entry, "host") + ": nothing signed it before)";
  }
  return line;
}

// JsonLine carries the entry's own bytes, so that its leaf hash can be computed from them; what is
// no event of a version that is known is a string.
std::string JsonLine(const LoggedEvent& logged) {
  const bool is_json = logged.event || Json::accept(logged.line);
  return fmt::format("{{\"seq\":{},\"leaf_hash\":\"{}\",\"{}\":{}}}\n", logged.seq,
                     EncodeBase64Url(logged.leaf_hash), is_json ? "entry" : "line",
                     is_json
                         ? logged.line
                         : Json(logged.line).dump(-1, ' ', false, Json::error_handler_t::replace));
}

// LogWriter writes the log piece by piece: it may be longer than memory is.
class LogWriter {
 public:
  LogWriter(Terminal& terminal, bool json_lines) : terminal_(terminal), json_lines_(json_lines) {
    if (terminal_.json()) {
      buffer_ = DumpDocument(NewDocument("audit log"));
      buffer_.resize(buffer_.rfind('}'));  // stays open for the entries
      while (buffer_.back() == '\n') buffer_.pop_back();
      buffer_ += ",\n  \"entries\": [";
    }
  }
  Status Add(const LoggedEvent& logged) {
    if (json_lines_) {
      buffer_ += JsonLine(logged);
    } else if (terminal_.json()) {
      buffer_ += num_ == 0 ? "\n    " : ",\n    ";
      buffer_ += EntryJson(logged).dump(-1, ' ', false, Json::error_handler_t::replace);
    } else {
      buffer_ += EscapeForTerminal(EntryLine(EntryJson(logged))) + "\n";
    }
    ++num_;
    return buffer_.size() < kChunkBytes ? Ok() : Flush();
  }
  Status Finish() {
    if (terminal_.json()) buffer_ += num_ == 0 ? "]\n}\n" : "\n  ]\n}\n";
    return Flush();
  }

 private:
  Status Flush() {
    const std::string chunk = std::move(buffer_);
    buffer_.clear();
    return terminal_.WriteResult(chunk);
  }

  Terminal& terminal_;
  bool json_lines_;
  std::string buffer_;
  std::size_t num_ = 0;
};

Result<int> DoLog(const AuditLogOptions& options, Session& session) {
  if (options.json_lines && session.terminal().json()) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "--json-lines and --json exclude each other",
                 "leave one of them out");
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  EventFilter filter;
  filter.first = options.since.value_or(0);
  // Who collects the log asks for the entry after the last one that they have.
  ASSIGN_OR_RETURN(const store::LogHead head, agent->store().Head());
  if (filter.first > head.size) {
    return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
                 fmt::format("the log ends before entry {}: its size is {}, and it was longer when "
                             "it was read",
                             filter.first, head.size),
                 "it was cut off, or an old copy was put back: keep what you have, and compare it "
                 "with 'keyescrow verify --since CHECKPOINT'; if SEQ is mistyped, correct it");
  }
  LogWriter writer(session.terminal(), options.json_lines);
  Status written;
  RETURN_IF_ERROR(agent->journal().Events(filter, [&](const LoggedEvent& logged) {
    written = writer.Add(logged);
    return written.has_value();
  }));
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(writer.Finish());
  return kExitDone;
}

Result<int> DoCheckpoint(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::string note, agent->journal().LatestCheckpoint());
  Json document = NewDocument("audit checkpoint");
  document["checkpoint"] = note;
  return session.Finish(document, note);
}

Result<int> DoProve(const AuditProveOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                   agent->store().FindEnvelope(options.name, std::nullopt));
  ASSIGN_OR_RETURN(const std::string proof, agent->journal().ProveEnvelope(record));
  Json document = NewDocument("audit prove");
  document["key"] = KeyJson(record.key_name, record.key_version);
  document["envelope_sha256"] = EncodeBase64Url(record.sha256);
  document["log_seq"] = record.log_seq;
  document["proof"] = proof;
  return session.Finish(document, proof);
}

Result<int> DoAnchor(const AuditAnchorOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  session.progress().Step("anchoring the log in the tpm");
  ASSIGN_OR_RETURN(const AnchorResult result, AnchorLog(*agent, {options.renew, options.accept}));
  Json document = NewDocument("audit anchor");
  document["counter"] = result.counter;
  document["log_seq"] = result.log_seq;
  document["made"] = result.made;
  document["settled"] = result.settled;
  std::string text;
  if (result.made) text += "made the log's counter in the tpm\n";
  if (result.settled) text += "accepted the counter as it was found\n";
  text += fmt::format("anchored at {}, entry {}\n", result.counter, result.log_seq);
  return session.Finish(document, text);
}

}  // namespace

int RunAuditAnchor(const GlobalOptions& /*global*/, const AuditAnchorOptions& options,
                   Session& session) {
  return session.Exit(DoAnchor(options, session));
}

int RunAuditLog(const GlobalOptions& /*global*/, const AuditLogOptions& options, Session& session) {
  return session.Exit(DoLog(options, session));
}

int RunAuditCheckpoint(const GlobalOptions& /*global*/, const AuditCheckpointOptions& /*options*/,
                       Session& session) {
  return session.Exit(DoCheckpoint(session));
}

int RunAuditProve(const GlobalOptions& /*global*/, const AuditProveOptions& options,
                  Session& session) {
  return session.Exit(DoProve(options, session));
}

}  // namespace keyescrow::agent
