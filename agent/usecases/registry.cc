#include "agent/usecases/registry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/foreign_checks.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

Error InvalidName(const std::string& name) {
  return Error(ErrorCode::kInvalidName, Action::kFixInput, "\"" + name + "\" is not a name",
               "a name has 1 to 64 letters, digits, '.', '_' and '-'");
}

constexpr char kOtherName[] = "choose another name, or remove the token of that name first";

Error AlreadyRegistered(const std::string& name, std::string hint) {
  return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
               "a token is registered as " + name + " already", std::move(hint));
}

Status CheckNewToken(Agent& agent, const std::string& name) {
  if (!envelope::IsName(name)) return InvalidName(name);
  auto existing = agent.store().FindToken(name);
  if (existing) return AlreadyRegistered(name, kOtherName);
  if (existing.error().code() != ErrorCode::kTokenNotRegistered) {
    return std::move(existing).error();
  }
  return Ok();
}

Result<TokenAddResult> Register(Agent& agent, const TokenAddRequest& request, TokenKeyFacts key,
                                Secrets& secrets) {
  if (key.kind != "rsa" && key.kind != "ec-p256") {
    return Error(ErrorCode::kTokenKeyUsage, Action::kFixInput,
                 "the key \"" + key.label + "\" is neither RSA nor P-256",
                 "name an RSA key of 2048 bits or more, or a P-256 key; 'token keygen' makes one");
  }
  ASSIGN_OR_RETURN(const auto same_key, agent.FindTokenByKey(key.spki));
  if (same_key && same_key->name != request.name) {
    return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                 "this key is registered as " + same_key->name + " already",
                 "use that name in paths, or 'token remove " + same_key->name + "' first");
  }
  ASSIGN_OR_RETURN(const auto reported, CheckNewTokenKey(agent, request.name, key.spki));
  TokenAddResult result;
  result.findings = FindingTexts(reported);
  store::TokenRecord& record = result.record;
  record.name = request.name;
  record.uri = key.uri;
  record.module = request.module;
  record.spki = key.spki;
  record.added = same_key ? same_key->added : agent.Now();
  record.pin_source =
      same_key && request.pin_source.empty() ? same_key->pin_source : request.pin_source;
  if (!key.evidence.empty()) {
    record.evidence = key.evidence;
    result.evidence_read = true;
  } else if (secrets.HasPin(request.name)) {
    ASSIGN_OR_RETURN(record.evidence,
                     agent.environment().devices->ReadTokenEvidence(
                         {request.name, request.module, key.uri, key.spki, request.use_last_try},
                         secrets.Pins()));
    result.evidence_read = true;
  } else if (same_key) {
    return AlreadyRegistered(request.name, "to have its key looked at again, give its PIN");
  } else {
    result.findings.push_back(
        "no PIN was given, so the private key was not seen: that the token "
        "holds it is proven by the first backup that proves a path");
  }
  if (key.token.software) {
    result.findings.push_back("the token is SOFTWARE: its keys are files on this host");
  }
  audit::Event event;
  event.type = audit::EventType::kFactorEnrolled;
  event.paths.push_back(
      {"",
       {{key.kind == "rsa" ? "pkcs11-rsa" : "pkcs11-ecdh", request.name, Sha256(key.spki), ""}}});
  event.reason = EvidenceReason(record.evidence);
  store::Change change;
  change.tokens.push_back(record);
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  result.key = std::move(key);
  return result;
}

nlohmann::ordered_json JwkOf(const P256Point& point) {
  return {{"crv", "P-256"},
          {"kty", "EC"},
          {"x", EncodeBase64Url(point.x())},
          {"y", EncodeBase64Url(point.y())}};
}

constexpr std::size_t kMaxAgentKeyDocumentBytes = 64 * 1024;  // they have about one

Error BadDocument(std::string what =
                      "this is neither a thumbprint nor what 'agent-key export' "
                      "writes") {
  return Error(ErrorCode::kUsage, Action::kFixInput, std::move(what),
               "run 'keyescrow agent-key export' on the agent's host and name that file");
}

bool IsThumbprint(std::string_view text) {
  const auto bytes = DecodeBase64Url(text);
  return bytes && bytes->size() == 32;
}

constexpr char kReceiptSuffix[] = ".receipt";

// NoPin refuses: to look whether a token is there costs no try.
class NoPin final : public envelope::PinProvider {
 public:
  Result<SecretBytes> AskPin(const envelope::PinRequest& /*request*/) override {
    return Error(ErrorCode::kSecretSourceMissing, Action::kFixInput,
                 "the token shows its keys after a login only, and none is done here",
                 "a backup or restore logs in");
  }
  void OnReader(const envelope::PinRequest& /*request*/) override {}
};

}  // namespace

Status LocateToken(const store::TokenRecord& record, Devices& devices) {
  NoPin pins;
  TokenSpec spec;
  spec.name = record.name;
  spec.module = record.module;
  spec.uri = record.uri;
  spec.spki = record.spki;
  ASSIGN_OR_RETURN(const auto factor, devices.StartToken(spec, pins));
  return factor->Locate();
}

Result<TokenAddResult> AddToken(Agent& agent, const TokenAddRequest& request, Secrets& secrets) {
  const Status is_new = CheckNewToken(agent, request.name);
  const auto existing = agent.store().FindToken(request.name);
  if (!is_new && !existing) return is_new.error();
  ASSIGN_OR_RETURN(TokenKeyFacts key,
                   agent.environment().devices->FindTokenKey(request.module, request.uri, nullptr));
  if (existing && existing->spki != key.spki) return is_new.error();  // another key
  return Register(agent, request, std::move(key), secrets);
}

Result<TokenAddResult> GenerateToken(Agent& agent, const TokenAddRequest& request, bool p256,
                                     Secrets& secrets) {
  RETURN_IF_ERROR(CheckNewToken(agent, request.name));
  KeyPairRequest pair{request.module, request.uri, p256, "keyescrow " + request.name,
                      request.use_last_try};
  ASSIGN_OR_RETURN(TokenKeyFacts key,
                   agent.environment().devices->GenerateTokenKey(pair, secrets.Pins()));
  const std::string uri = key.uri;
  auto registered = Register(agent, request, std::move(key), secrets);
  if (registered) return registered;
  // Nothing on a token is ever destroyed: an entry that failed may yet turn out to be written.
  const std::string hint = registered.error().hint();
  return std::move(registered)
      .error()
      .WithContext("the new key pair is on the token, but was not registered")
      .WithHint(hint + "; then keyescrow token add " + request.name + " '" + uri + "' --module " +
                request.module + " registers it, and pkcs11-tool --delete-object removes it");
}

namespace {

// NeedsToken: the factor cannot be opened by what is registered here once the token is not.
bool NeedsToken(const envelope::FactorRecord& factor, const store::TokenRecord& token,
                const std::vector<store::TokenRecord>& registered) {
  if (const auto identity = IdentityOf(factor)) return *identity->spki == token.spki;
  const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
  if (shares == nullptr) return false;
  bool is_member = false;
  std::size_t num_others = 0;
  for (const envelope::ShareMember& member : shares->members) {
    const Bytes& spki =
        std::visit([](const auto& record) -> const Bytes& { return record.spki; }, member.factor);
    if (spki == token.spki) {
      is_member = true;
    } else if (std::ranges::find(registered, spki, &store::TokenRecord::spki) != registered.end()) {
      ++num_others;
    }
  }
  return is_member && num_others < shares->threshold;
}

}  // namespace

Result<std::vector<std::string>> StrandedKeys(Agent& agent, const std::string& token_name) {
  ASSIGN_OR_RETURN(const store::TokenRecord token, agent.store().FindToken(token_name));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  ASSIGN_OR_RETURN(const auto registered, agent.store().Tokens());
  std::vector<std::string> stranded;
  std::optional<Error> failed;
  store::EscrowStore::EnvelopeQuery query;
  query.with_bytes = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) {
      failed = std::move(sealed).error();
      return false;
    }
    const auto needs_token = [&](const envelope::PathRecord& path) {
      return std::any_of(path.factors.begin(), path.factors.end(),
                         [&](const envelope::FactorRecord& factor) {
                           return NeedsToken(factor, token, registered);
                         });
    };
    const auto& paths = sealed->header().paths;
    if (std::all_of(paths.begin(), paths.end(), needs_token)) {
      stranded.push_back(record.key_name + " version " + std::to_string(record.key_version));
    }
    return true;
  }));
  if (failed) return *failed;
  return stranded;
}

Status RemoveToken(Agent& agent, const std::string& token_name) {
  ASSIGN_OR_RETURN(const store::TokenRecord token, agent.store().FindToken(token_name));
  RETURN_IF_ERROR(CheckTokenRemoval(agent, token));
  audit::Event event;
  event.type = audit::EventType::kFactorRemoved;
  event.paths.push_back({"", {{"pkcs11", token_name, Sha256(token.spki), ""}}});
  store::Change change;
  change.removed_tokens.push_back(token_name);
  change.removal_time = agent.Now();
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return Ok();
}

Result<TrustAddResult> AddTrust(Agent& agent, const TrustAddRequest& request) {
  TrustAddResult result;
  store::TrustRecord& record = result.record;
  record.hosts = request.hosts;
  record.keys = request.keys;
  record.added = agent.Now();
  if (IsThumbprint(request.agent)) {
    record.thumbprint = request.agent;
  } else {
    const auto text = ReadDocument(request.agent, "agent's public key");
    if (!text) return BadDocument("no thumbprint, and as a file: " + text.error().message());
    ASSIGN_OR_RETURN(const TrustDocument document, ParseAgentKeyDocument(AsText(*text)));
    record.thumbprint = document.thumbprint;
    record.name = document.host;
    record.spki = document.spki;
  }
  ASSIGN_OR_RETURN(const std::vector<Finding> reported, CheckTrustScope(agent, record));
  result.findings = FindingTexts(reported);
  audit::Event event;
  event.type = audit::EventType::kPolicyChanged;
  event.reason = TrustReason(record);
  store::Change change;
  change.trust.push_back(record);
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return result;
}

Status RemoveTrust(Agent& agent, const std::string& thumbprint) {
  auto found = agent.store().FindTrust(thumbprint);
  if (!found) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 "the agent " + thumbprint + " is not among the trusted ones",
                 "'keyescrow trust list' shows them");
  }
  RETURN_IF_ERROR(CheckTrustRemoval(agent, thumbprint));
  audit::Event event;
  event.type = audit::EventType::kPolicyChanged;
  event.reason = TrustRemovedReason(thumbprint);
  store::Change change;
  change.removed_trust.push_back(thumbprint);
  change.removal_time = agent.Now();
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return Ok();
}

std::string AgentKeyDocument(Agent& agent) {
  const AgentIdentity& identity = agent.identity();
  nlohmann::ordered_json document;
  document["schema"] = "keyescrow/agent-key/1";
  document["host"] = identity.host;
  document["thumbprint"] = identity.Thumbprint();
  document["jwk"] = JwkOf(identity.p256);
  document["log_origin"] = identity.origin;
  document["log_keys"] = nlohmann::ordered_json::array();
  for (const audit::NoteKey& key : agent.journal().Keys()) {
    document["log_keys"].push_back(key.Vkey());
  }
  if (identity.anchor) {
    document["anchor"] = {{"index", identity.anchor->key.nv_index},
                          {"tpm_public", EncodeBase64Url(identity.anchor->key.attestation_public)}};
  }
  return document.dump(2) + "\n";
}

Result<TrustDocument> ParseAgentKeyDocument(std::string_view text) {
  // A parsed document takes many times its text.
  if (text.size() > kMaxAgentKeyDocumentBytes) return BadDocument();
  const nlohmann::ordered_json json = ParsePackJson(text);
  const auto text_of = [](const nlohmann::ordered_json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!json.is_object() || text_of(json, "schema") != "keyescrow/agent-key/1" ||
      !json.contains("jwk") || !json["jwk"].is_object()) {
    return BadDocument();
  }
  const auto x = DecodeBase64Url(text_of(json["jwk"], "x"));
  const auto y = DecodeBase64Url(text_of(json["jwk"], "y"));
  const auto point = x && y ? P256Point::FromXy(*x, *y) : std::nullopt;
  TrustDocument document;
  document.host = text_of(json, "host");
  document.thumbprint = text_of(json, "thumbprint");
  document.origin = text_of(json, "log_origin");
  if (!point || JwkThumbprint(*point) != document.thumbprint || !envelope::IsName(document.host)) {
    return BadDocument();
  }
  const auto spki = point->Spki();
  document.spki.assign(spki.begin(), spki.end());
  if (json.contains("log_keys") && json["log_keys"].is_array()) {
    for (const auto& entry : json["log_keys"]) {
      auto key =
          entry.is_string() ? audit::NoteKey::FromVkey(entry.get<std::string>()) : std::nullopt;
      if (!key) return BadDocument();
      document.log_keys.push_back(std::move(*key));
    }
  }
  if (const auto anchor = json.find("anchor"); anchor != json.end()) {
    if (!anchor->is_object()) return BadDocument();
    const auto key = DecodeBase64Url(text_of(*anchor, "tpm_public"));
    const auto index = anchor->find("index");
    if (!key || !envelope::ParseAttestationKey(*key) || index == anchor->end() ||
        !index->is_number_unsigned() || index->get<std::uint64_t>() > UINT32_MAX) {
      return BadDocument();
    }
    document.anchor = envelope::AnchorKey{*key, index->get<std::uint32_t>()};
  }
  return document;
}

namespace {

// IsKeptHere: the file is an envelope that the store keeps too: nothing is lost with it.
Result<bool> IsKeptHere(Agent& agent, const std::string& path) {
  const auto source = FindEnvelope(nullptr, "file:" + path, std::nullopt);
  if (!source) return false;
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  const auto sealed = envelope::SealedEnvelope::Read(source->bytes, trust);
  if (!sealed) return false;
  bool kept = false;
  store::EscrowStore::EnvelopeQuery query;
  query.key_name = sealed->header().key_name;
  query.all_revisions = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    kept = record.sha256 == sealed->hash();
    return !kept;
  }));
  return kept;
}

}  // namespace

Status CheckPortablePlace(Agent& agent, const KeyLocation& location) {
  RETURN_IF_ERROR(CheckTakesFiles(location));
  const std::string path = location.FilePath();
  if (path.empty()) return Ok();
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) && found.st_size > 0) {
    ASSIGN_OR_RETURN(const bool kept, IsKeptHere(agent, path));
    if (!kept) return DocumentPlaceTaken(path, "an envelope that is kept here too");
  }
  return CheckDocumentPlace(path + kReceiptSuffix, "a receipt", {"c2sp.org/tlog-proof@v1"});
}

Result<std::string> WritePortable(Agent& agent, const store::EnvelopeRecord& record,
                                  const std::string& sink, std::string receipt) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  const std::string path = location->FilePath();
  if (path.empty()) {
    RETURN_IF_ERROR(CheckTakesFiles(*location));
    // An envelope is public: what makes it a secret's container is inside.
    ASSIGN_OR_RETURN(const SecretBytes bytes, SecretBytes::CopyOf(record.bytes));
    RETURN_IF_ERROR(location->Write(bytes, {}));
    return std::string();
  }
  if (receipt.empty()) {
    ASSIGN_OR_RETURN(receipt, agent.journal().ProveEnvelope(record));
  }
  DurableWriteOptions options;
  options.mode = 0644;
  // A key that was restored there while this waited is no document's to replace.
  options.may_write = [&] { return CheckPortablePlace(agent, *location); };
  RETURN_IF_ERROR(WritePairDurably(path, record.bytes, kReceiptSuffix, AsBytes(receipt), options));
  return path + kReceiptSuffix;
}

audit::Event PortableFileEvent(const store::EnvelopeRecord& record) {
  audit::Event event;
  event.type = audit::EventType::kAuditExported;
  event.key = audit::EventKey{record.key_name, record.key_version};
  event.envelope = audit::EventEnvelope{record.envelope_id, record.revision, record.sha256};
  event.reason = "portable file";
  return event;
}

Result<ExportResult> ExportKey(Agent& agent, const std::string& key_name, const std::string& sink) {
  if (!envelope::IsKeyName(key_name)) return InvalidName(key_name);
  ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                   agent.store().FindEnvelope(key_name, std::nullopt));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(record.bytes, trust));
  RETURN_IF_ERROR(CheckExport(agent, sealed.header()));
  ExportResult result;
  result.key_name = record.key_name;
  result.key_version = record.key_version;
  result.envelope_hash = record.sha256;
  result.agent = sealed.header().agent;
  result.output = sink;
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  RETURN_IF_ERROR(CheckPortablePlace(agent, *location));
  RETURN_IF_ERROR(location->CheckWritable());
  // Of the checkpoint as it stands: the one of the entry below may lack the agent key's signature.
  ASSIGN_OR_RETURN(std::string receipt, agent.journal().ProveEnvelope(record));
  RETURN_IF_ERROR(agent.journal().Append(PortableFileEvent(record)));
  ASSIGN_OR_RETURN(result.receipt, WritePortable(agent, record, sink, std::move(receipt)));
  return result;
}

}  // namespace keyescrow::agent
