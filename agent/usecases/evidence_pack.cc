#include "agent/usecases/evidence_pack.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/audit/merkle.h"
#include "agent/audit/proof.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/report/control_map.h"
#include "agent/report/embedded.h"
#include "agent/report/pack_manifest.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
#include "agent/report/report_read.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_documents.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/pack_recovery_keys.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/report.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLinesInAFile = 4096;
constexpr std::size_t kWriteBytes = 1U << 20;

// Buffered joins small writes.
class Buffered {
 public:
  explicit Buffered(const WriteBytes& write) : write_(write) {}
  Status Write(ByteView bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return buffer_.size() < kWriteBytes ? Ok() : Flush();
  }
  Status Flush() {
    Status status = write_(buffer_);
    buffer_.clear();
    return status;
  }

 private:
  const WriteBytes& write_;
  Bytes buffer_;
};

class PackWriter {
 public:
  PackWriter(Agent& agent, report::ReportModel& model, report::TarWriter& tar)
      : agent_(agent), model_(model), tar_(tar) {}

  Result<PackResult> Write() {
    RETURN_IF_ERROR(Add("README.txt", report::kPackReadme));
    RETURN_IF_ERROR(Add("verify.py", report::kVerifyPy));
    RETURN_IF_ERROR(AddKeys());
    RETURN_IF_ERROR(AddPolicy());
    RETURN_IF_ERROR(Add("checkpoint", model_.checkpoint.note));
    RETURN_IF_ERROR(AddSummaries());
    RETURN_IF_ERROR(AddEntries());
    RETURN_IF_ERROR(AddCheckpoints());
    RETURN_IF_ERROR(AddTiles());
    RETURN_IF_ERROR(Add("drills.jsonl", drills_.Lines()));
    RETURN_IF_ERROR(Add("anchors.jsonl", anchor_lines_));
    RETURN_IF_ERROR(AddRecoveryKeys());
    RETURN_IF_ERROR(AddInventory());
    RETURN_IF_ERROR(AddReport());
    RETURN_IF_ERROR(AddControls());
    RETURN_IF_ERROR(AddProofs());
    PackResult result;
    RETURN_IF_ERROR(Sign(result));
    RETURN_IF_ERROR(tar_.Finish());
    result.num_files = num_files_;
    result.size_bytes = tar_.size_bytes();
    result.log_size = size();
    result.complies = report::Complies(model_);
    return result;
  }

 private:
  std::uint64_t size() const { return model_.checkpoint.size; }

  Status Add(std::string_view name, std::string_view bytes) {
    manifest_ += report::FormatManifestLine(name, bytes);
    ++num_files_;
    return tar_.Add(name, bytes);
  }

  // Lines go to FOLDER/<number of the first>.jsonl, 4096 a file.
  struct Lines {
    std::string folder;
    std::uint64_t num_lines = 0;
    std::string buffer;
  };
  Status AddLine(Lines& lines, std::string_view line) {
    lines.buffer += line;
    if (++lines.num_lines % kLinesInAFile != 0) return Ok();
    return FlushLines(lines);
  }
  Status FlushLines(Lines& lines) {
    if (lines.buffer.empty()) return Ok();
    const std::uint64_t first = (lines.num_lines - 1) / kLinesInAFile * kLinesInAFile;
    Status status = Add(fmt::format("{}/{:012}.jsonl", lines.folder, first), lines.buffer);
    lines.buffer.clear();
    return status;
  }

  Status AddKeys() {
    RETURN_IF_ERROR(Add("keys/agent-key.json", AgentKeyDocument(agent_)));
    std::string vkeys;
    for (const audit::NoteKey& key : agent_.journal().Keys()) vkeys += key.Vkey() + "\n";
    RETURN_IF_ERROR(Add("keys/log.vkeys", vkeys));
    ASSIGN_OR_RETURN(const auto trust, agent_.store().Trust());
    RETURN_IF_ERROR(Add("keys/trusted-agents.json", TrustedAgentsJson(trust)));
    ASSIGN_OR_RETURN(const auto tokens, agent_.store().Tokens());
    return Add("keys/tokens.json", TokensJson(tokens));
  }

  // AddPolicy adds the policy in force with what it was signed and accepted under.
  Status AddPolicy() {
    ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent_.Policy());
    const policy::Policy& policy = in_force->policy;
    RETURN_IF_ERROR(Add("policy/policy.json",
                        FormatPolicyFacts({policy.name, policy.serial,
                                           Sha256(AsBytes(in_force->text)), in_force->set_time})));
    RETURN_IF_ERROR(Add("policy/policy.toml", in_force->text));
    if (in_force->IsBuiltin()) return Ok();
    ASSIGN_OR_RETURN(const auto records, agent_.store().Policies(0));
    const auto record = std::find_if(records.begin(), records.end(), [&](const auto& other) {
      return other.serial == policy.serial;
    });
    if (record == records.end()) {
      return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                   "the policy in force is not in the store", "put the store back from a copy");
    }
    RETURN_IF_ERROR(Add("policy/policy.toml.sig", record->note));
    return Add("policy/signers", record->signers);
  }

  Status AddEntries() {
    Lines lines{.folder = "entries", .num_lines = 0, .buffer = ""};
    Status status;
    RETURN_IF_ERROR(agent_.store().Entries(0, "", [&](const store::LogEntry& entry) {
      if (entry.seq >= size()) return false;
      const std::string_view text = AsText(entry.bytes);
      Remember(entry.seq, text);
      status = AddLine(lines, std::string(text) + "\n");
      return status.has_value();
    }));
    RETURN_IF_ERROR(status);
    return FlushLines(lines);
  }

  // Remember keeps the proofs of paths, and the certificates of the log's counter.
  void Remember(std::uint64_t seq, std::string_view text) {
    const bool interesting = text.find("\"drill\":{") != std::string_view::npos ||
                             text.find("\"anchor\":{") != std::string_view::npos;
    if (!interesting) return;
    const auto event = audit::ParseEvent(text);
    if (!event) return;
    if (event->drill) drills_.Add(seq, *event);
    anchor_lines_ += AnchorLine(seq, text, *event);
  }

  Status AddCheckpoints() {
    Lines lines{.folder = "checkpoints", .num_lines = 0, .buffer = ""};
    Status status;
    RETURN_IF_ERROR(agent_.store().Checkpoints(0, [&](std::uint64_t at, std::string_view note) {
      status = AddLine(lines, JsonLine({{"size", at}, {"note", note}}));
      return status.has_value();
    }));
    RETURN_IF_ERROR(status);
    return FlushLines(lines);
  }

  Status AddTiles() {
    std::uint64_t num_hashes = size();
    for (unsigned level = 0; num_hashes > 0; ++level, num_hashes /= audit::kTileWidth) {
      for (std::uint64_t first = 0; first < num_hashes; first += audit::kTileWidth) {
        const std::uint64_t index = first / audit::kTileWidth;
        const auto width = static_cast<unsigned>(std::min(audit::kTileWidth, num_hashes - first));
        ASSIGN_OR_RETURN(const Bytes bytes, agent_.store().Tile(level, index));
        RETURN_IF_ERROR(Add(audit::TilePath(level, index, width), AsText(bytes)));
      }
    }
    return Ok();
  }

  Status AddSummaries() {
    // Whether its agent counted at its time is for who verifies: a removed one's is told of too.
    envelope::ReadOptions trust;
    trust.accept_unknown_agent = true;
    Lines lines{.folder = "summaries", .num_lines = 0, .buffer = ""};
    store::EscrowStore::EnvelopeQuery query;
    query.all_revisions = true;
    query.with_bytes = true;
    Status status;
    RETURN_IF_ERROR(agent_.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
      auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
      if (!sealed) {
        status = std::move(sealed).error().WithContext(record.key_name);
        return false;
      }
      // Versions and revisions ascend: the last of each key that counts is the one in use.
      if (record.standing == store::VersionStanding::kEscrowed) {
        inventory_[record.key_name] = InventoryItem(record, *sealed);
      }
      status = AddSummary(lines, SummaryLine(record, *sealed));
      return status.has_value();
    }));
    RETURN_IF_ERROR(status);
    return FlushLines(lines);
  }

  Status AddSummary(Lines& lines, const std::string& line) {
    ASSIGN_OR_RETURN(EnvelopeSummary summary, ParseSummary(line));
    const std::uint64_t seq = summary.log_seq;
    drills_.AddEnvelope(summaries_.emplace(seq, std::move(summary)).first->second);
    return AddLine(lines, line);
  }

  static Json InventoryItem(const store::EnvelopeRecord& record,
                            const envelope::SealedEnvelope& sealed) {
    return {{"name", record.key_name},
            {"version", record.key_version},
            {"revision", record.revision},
            {"envelope_sha256", EncodeBase64Url(sealed.hash())},
            {"log_seq", record.log_seq}};
  }

  Status AddRecoveryKeys() {
    ASSIGN_OR_RETURN(const auto rows, agent_.store().RecoveryKeys());
    std::vector<const EnvelopeSummary*> newest;
    for (const auto& [name, item] : inventory_) {
      newest.push_back(&summaries_.at(item["log_seq"].get<std::uint64_t>()));
    }
    ASSIGN_OR_RETURN(const std::string text, RecoveryKeysJson(rows, newest));
    return Add("keys/recovery-keys.json", text);
  }

  Status AddInventory() {
    Json inventory = {{"schema", "keyescrow/inventory/1"},
                      {"query", report::kQuery},
                      {"declared", Json::array()},
                      {"escrowed", Json::array()}};
    for (const DeclaredKey& key : agent_.environment().config->keys) {
      inventory["declared"].push_back(
          {{"name", key.name}, {"source", key.source}, {"paths", key.paths}});
    }
    for (const auto& [name, item] : inventory_) inventory["escrowed"].push_back(item);
    inventory["foreign"] = report::ForeignListJson(model_);
    return Add("inventory.json", JsonText(inventory));
  }

  // AddReport makes HTML and CSV from what status.json says, as whoever verifies the pack does.
  Status AddReport() {
    const std::string status = report::ReportJson(model_);
    const auto stated = report::ReadReportJson(status);
    if (!stated) {
      return Error(ErrorCode::kInternal, Action::kReportBug, "the report cannot be read again",
                   "report this with the output of 'keyescrow audit report --json'");
    }
    RETURN_IF_ERROR(Add("status.json", status));
    RETURN_IF_ERROR(Add("report.html", report::ReportHtml(*stated)));
    return Add("report.csv", report::ReportCsv(*stated));
  }

  Status AddControls() { return Add("controls.md", report::ControlsMarkdown()); }

  Status AddProofs() {
    const audit::TileReader read = [&](unsigned level, std::uint64_t index) {
      return agent_.store().Tile(level, index);
    };
    std::set<std::uint64_t> places;
    for (const auto& [version, seq] : NewestOfVersions(summaries_)) places.insert(seq);
    for (const std::uint64_t seq : places) {
      audit::TlogProof proof;
      ASSIGN_OR_RETURN(store::LogEntry entry, agent_.store().Entry(seq));
      ASSIGN_OR_RETURN(proof.hashes, audit::InclusionProof(seq, size(), read));
      proof.extra = std::move(entry.bytes);
      proof.index = seq;
      proof.checkpoint = model_.checkpoint.note;
      RETURN_IF_ERROR(Add(ProofMember(seq), audit::FormatTlogProof(proof)));
    }
    return Ok();
  }

  Status Sign(PackResult& result) {
    RETURN_IF_ERROR(tar_.Add(report::kManifest, manifest_));
    const std::string text = report::FormatPackStatement(
        {model_.checkpoint.origin, size(), Sha256(AsBytes(manifest_)), model_.now});
    const auto& keys = agent_.journal().Keys();
    ASSIGN_OR_RETURN(const SecretBytes seed, LoadEd25519Seed(agent_.environment().state_dir));
    ASSIGN_OR_RETURN(const std::string log_line, audit::SignLineEd25519(keys.front(), seed, text));
    // A dead TPM stops no export: the missing line is a finding of whoever verifies.
    auto agent_line = audit::SignLineP256(keys.back(), agent_.signer(), text);
    result.agent_key_signed = agent_line.has_value();
    return tar_.Add(report::kManifestSignature,
                    text + "\n" + log_line + (agent_line ? *agent_line : std::string()));
  }

  Agent& agent_;
  report::ReportModel& model_;
  report::TarWriter& tar_;
  std::string manifest_;
  std::uint64_t num_files_ = 0;
  Summaries summaries_;
  PackDrills drills_;
  std::map<std::string, Json> inventory_;  // newest of each key
  std::string anchor_lines_;
};

}  // namespace

Result<PackResult> ExportEvidence(Agent& agent, const WriteBytes& write) {
  audit::Event event;
  event.type = audit::EventType::kAuditExported;
  event.reason = "evidence pack";
  // An agent without anything to report exports nothing, and logs nothing.
  RETURN_IF_ERROR(BuildReport(agent));
  RETURN_IF_ERROR(agent.journal().Append(std::move(event)));
  PackResult result;
  const auto export_all = [&]() -> Status {
    ASSIGN_OR_RETURN(report::ReportModel model, ReadReport(agent));
    Buffered out(write);
    report::TarWriter tar(fmt::format("keyescrow-{}-{}", model.host, model.checkpoint.size),
                          model.now, [&](ByteView bytes) { return out.Write(bytes); });
    ASSIGN_OR_RETURN(result, PackWriter(agent, model, tar).Write());
    return out.Flush();
  };
  RETURN_IF_ERROR(agent.store().ReadTogether(export_all));
  return result;
}

Result<PackResult> ExportEvidenceFile(Agent& agent, const std::string& path) {
  RETURN_IF_ERROR(CheckDocumentPlace(path, "an evidence pack", {"keyescrow-"}));
  ASSIGN_OR_RETURN(FileReplacement file, FileReplacement::Open(path));
  struct stat found {};
  ASSIGN_OR_RETURN(const bool exists, file.Inspect(&found));
  RETURN_IF_ERROR(file.Stage({}));
  ASSIGN_OR_RETURN(const PackResult result,
                   ExportEvidence(agent, [&](ByteView bytes) { return file.StageMore(bytes); }));
  RETURN_IF_ERROR(file.Publish(exists ? FileReplacement::Existing::kReplace
                                      : FileReplacement::Existing::kKeep));
  return result;
}

}  // namespace keyescrow::agent
