#include "agent/usecases/recovery_sheet.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "agent/usecases/envelope_source.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/shell_word.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/json_strict.h"
#include "envelope/pkcs11_uri.h"
#include "envelope/sheet_lines.h"

namespace keyescrow::agent {
namespace {

// TokenNeed says by which signs a token is told from others.
std::string TokenNeed(const std::string& name, const std::string& uri) {
  std::string text = "the token " + name + " with its PIN";
  const auto parsed = envelope::Pkcs11Uri::Parse(uri);
  if (!parsed) return text;
  std::string signs;
  const auto add = [&](std::string_view what, const std::optional<std::string>& value) {
    if (!value || value->empty()) return;
    signs.append(signs.empty() ? "" : ", ").append(what).append(*value);
  };
  add("label ", parsed->token);
  add("", parsed->model);
  add("serial ", parsed->serial);
  return signs.empty() ? text : text + " (" + signs + ")";
}

// Need says what to bring for one factor.
struct Need {
  std::string operator()(const envelope::Pkcs11RsaRecord& record) const {
    return TokenNeed(record.token, record.uri);
  }
  std::string operator()(const envelope::Pkcs11EcdhRecord& record) const {
    return TokenNeed(record.token, record.uri);
  }
  std::string operator()(const envelope::SharesRecord& record) const {
    std::string names;
    for (const envelope::ShareMember& member : record.members) {
      names += (names.empty() ? "" : ", ") + member.name;
    }
    return fmt::format("{} of these {} officers, each with token and PIN: {}", record.threshold,
                       record.members.size(), names);
  }
  std::string operator()(const envelope::PasswordRecord& record) const {
    if (const auto* argon2id = std::get_if<envelope::Argon2idParameters>(&record.kdf)) {
      return fmt::format("the password (its check takes {} MiB of memory)",
                         (argon2id->memory_kib + 1023) / 1024);
    }
    return "the password";
  }
  std::string operator()(const envelope::Tpm2Record& record) const {
    return fmt::format("the machine {} itself: its TPM, not cleared{}", record.host,
                       record.pcrs.empty() ? "" : ", booted as it was (" + record.pcrs + ")");
  }
};

// ModuleOf returns the one PKCS#11 module that serves the path's tokens on this host, or "". A
// token is known by its key: its name may be another's by now.
std::string ModuleOf(const envelope::PathRecord& path,
                     const std::vector<store::TokenRecord>& registered) {
  std::set<std::string> modules;
  const auto add = [&](const envelope::FactorRecord& factor) {
    const auto identity = IdentityOf(factor);
    if (!identity) return;
    const auto token = std::ranges::find(registered, *identity->spki, &store::TokenRecord::spki);
    modules.insert(token == registered.end() ? "" : token->module);
  };
  for (const envelope::FactorRecord& factor : path.factors) {
    add(factor);
    const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
    if (shares == nullptr) continue;
    for (const envelope::ShareMember& member : shares->members) {
      std::visit([&](const auto& token) { add(token); }, member.factor);
    }
  }
  return modules.size() == 1 ? *modules.begin() : "";
}

report::SheetPath DescribePath(const envelope::PathRecord& path,
                               const std::vector<store::TokenRecord>& registered) {
  report::SheetPath entry;
  entry.id = path.id;
  entry.expression = PathExpressionText(path);
  entry.portable = true;
  if (path.recovery_key) {
    entry.needs.push_back("for the recovery key " + path.recovery_key->name);
  }
  for (const envelope::FactorRecord& factor : path.factors) {
    entry.needs.push_back(std::visit(Need(), factor));
    entry.portable = entry.portable && !std::holds_alternative<envelope::Tpm2Record>(factor);
    entry.has_password =
        entry.has_password || std::holds_alternative<envelope::PasswordRecord>(factor);
    entry.has_token = entry.has_token || envelope::FactorType(factor).starts_with("pkcs11") ||
                      std::holds_alternative<envelope::SharesRecord>(factor);
  }
  const std::string module = ModuleOf(path, registered);
  if (!module.empty()) entry.module = ShellWord(module);
  return entry;
}

}  // namespace

Result<RecoverySheetResult> MakeRecoverySheet(Agent& agent, const RecoverySheetRequest& request) {
  if (!envelope::IsKeyName(request.key_name)) {
    return Error(ErrorCode::kInvalidName, Action::kFixInput,
                 "\"" + request.key_name + "\" is not a key's name",
                 "name an escrowed key, as 'keyescrow list' shows it");
  }
  ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                   agent.store().FindEnvelope(request.key_name, std::nullopt));
  // What stands on paper is believed later: nobody unknown, and nothing but what the log names.
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(record.bytes, trust));
  if (sealed.hash() != record.sha256) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store's envelope is not the one that its row and the log name",
                 "run 'keyescrow verify', and compare the store with a copy");
  }
  const envelope::Header& header = sealed.header();
  RETURN_IF_ERROR(CheckExport(agent, header));
  if (record.bytes.size() > kMaxSheetEnvelopeBytes) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 fmt::format("the envelope has {} bytes: on paper go up to {}", record.bytes.size(),
                             kMaxSheetEnvelopeBytes),
                 "keep it as a file: keyescrow export " + request.key_name + " -o FILE");
  }
  report::RecoverySheet sheet;
  sheet.program_version = request.program_version;
  sheet.key_name = header.key_name;
  sheet.key_version = header.key_version;
  sheet.revision = header.revision;
  sheet.envelope_id = header.envelope_id;
  sheet.envelope_hash = EncodeBase64Url(sealed.hash());
  sheet.agent = header.agent;
  sheet.host = header.host;
  sheet.created = header.created;
  sheet.updated = header.updated;
  sheet.printed = FormatUtc(agent.Now());
  sheet.note = header.note.value_or("");
  ASSIGN_OR_RETURN(const auto registered, agent.store().Tokens());
  for (const envelope::PathRecord& path : header.paths) {
    sheet.paths.push_back(DescribePath(path, registered));
  }
  ASSIGN_OR_RETURN(sheet.packed, envelope::PackForSheet(record.bytes));
  RecoverySheetResult result;
  result.key_name = header.key_name;
  result.key_version = header.key_version;
  result.envelope_hash = sealed.hash();
  result.agent = header.agent;
  if (request.as_text) {
    result.document = RecoverySheetText(sheet);
  } else {
    ASSIGN_OR_RETURN(result.document, RecoverySheetHtml(sheet));
  }
  audit::Event event;
  event.type = audit::EventType::kAuditExported;
  event.key = audit::EventKey{record.key_name, record.key_version};
  event.envelope = audit::EventEnvelope{record.envelope_id, record.revision, record.sha256};
  event.reason = "recovery sheet";
  RETURN_IF_ERROR(agent.journal().Append(std::move(event)));
  return result;
}

}  // namespace keyescrow::agent
