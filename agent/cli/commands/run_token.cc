// token add, keygen, list, show, remove: the tokens whose public keys backups are wrapped to.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/token_uri.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/registry.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

Json RecordJson(const store::TokenRecord& record) {
  Json json = Json::object();
  json["name"] = record.name;
  json["uri"] = record.uri;
  json["module"] = record.module;
  json["spki"] = EncodeBase64Url(record.spki);
  json["spki_sha256"] = EncodeBase64Url(Sha256(record.spki));
  json["added"] = TimeJson(record.added);
  json["pin_source"] = record.pin_source.empty() ? Json(nullptr) : Json(record.pin_source);
  const Json evidence = Json::parse(record.evidence, nullptr, false);
  json["evidence"] = evidence.is_discarded() ? Json(nullptr) : evidence;
  return json;
}

constexpr Column kRecordFields[] = {
    {"uri", "  uri"},
    {"module", "  module"},
    {"spki_sha256", "  public key sha-256"},
    {"added", "  added"},
    {"pin_source", "  pin from"},
    {"kind", "  kind"},
    {"bits", "  bits"},
    {"token.label", "  token"},
    {"token.manufacturer", "  manufacturer"},
    {"token.model", "  model"},
    {"token.serial", "  serial"},
    {"token.software", "  software"},
    {"present", "  present"},
    {"why_not", "  why not"},
    {"evidence.source", "  evidence"},
    {"evidence.attributes.sensitive", "  sensitive"},
    {"evidence.attributes.extractable", "  extractable"},
    {"evidence.attributes.never_extractable", "  never extractable"},
    {"evidence.attributes.local", "  made on the token"},
};

Result<int> FinishAdded(std::string_view command, std::string_view verb,
                        const TokenAddResult& result, Session& session) {
  Json document = NewDocument(command);
  document.update(RecordJson(result.record));
  document["kind"] = result.key.kind;
  document["bits"] = result.key.bits;
  Json token = Json::object();
  token["label"] = result.key.token.label;
  token["manufacturer"] = result.key.token.manufacturer;
  token["model"] = result.key.token.model;
  token["serial"] = result.key.token.serial;
  token["firmware"] = result.key.token.firmware;
  token["software"] = result.key.token.software;
  document["token"] = std::move(token);
  document["evidence_read"] = result.evidence_read;
  document["findings"] = ListJson(result.findings);
  const std::string text =
      fmt::format("{} token:{}\n", verb, EscapeForTerminal(result.record.name)) +
      RenderFields(document, kRecordFields);
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text));
  for (const std::string& finding : result.findings) session.terminal().Warn(finding);
  session.terminal().Note("use it in paths: --path 'password & token:" + result.record.name + "'");
  return status;
}

Result<TokenAddRequest> TakeRequest(const TokenWords& words, bool use_last_try, Session& session,
                                    CliSecrets& secrets) {
  ASSIGN_OR_RETURN(TokenPlace place, TakeTokenUri(words, session, secrets));
  return TokenAddRequest{words.name, std::move(place.uri), std::move(place.module), use_last_try,
                         std::move(place.pin_source)};
}

Result<int> DoAdd(const TokenAddOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  ASSIGN_OR_RETURN(const TokenAddRequest request,
                   TakeRequest({options.name, options.uri, options.module}, options.use_last_try,
                               session, *secrets));
  session.progress().Step("looking for the token's key");
  ASSIGN_OR_RETURN(const TokenAddResult result, AddToken(*agent, request, *secrets));
  return FinishAdded("token add", "registered", result, session);
}

Result<int> DoKeygen(const TokenKeygenOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  ASSIGN_OR_RETURN(const TokenAddRequest request,
                   TakeRequest({options.name, options.uri, options.module}, options.use_last_try,
                               session, *secrets));
  session.progress().Step("making a key pair on the token");
  ASSIGN_OR_RETURN(const TokenAddResult result,
                   GenerateToken(*agent, request, options.kind == TokenKeyKind::kP256, *secrets));
  return FinishAdded("token keygen", "made a key on, and registered,", result, session);
}

Result<int> DoList(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::vector<store::TokenRecord> tokens, agent->store().Tokens());
  if (tokens.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no token is registered here",
                 "register one with 'keyescrow token add NAME URI --module SO'");
  }
  Json document = NewDocument("token list");
  document["tokens"] = Json::array();
  for (const store::TokenRecord& token : tokens) document["tokens"].push_back(RecordJson(token));
  constexpr Column kColumns[] = {
      {"name", "token"}, {"uri", "uri"}, {"module", "module"}, {"added", "added"}};
  return session.Finish(document, RenderTable(document["tokens"], kColumns));
}

Result<int> DoShow(const TokenShowOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const store::TokenRecord record, agent->store().FindToken(options.name));
  session.progress().Step("looking for the token");
  const Status located = LocateToken(record, session.devices());
  Json document = NewDocument("token show");
  document.update(RecordJson(record));
  document["present"] = located.has_value();
  document["why_not"] = located ? Json(nullptr) : Json(located.error().message());
  document["code"] = located ? Json(nullptr) : Json(ErrorCodeName(located.error().code()));
  const std::string text = fmt::format("token:{}\n", EscapeForTerminal(record.name)) +
                           RenderFields(document, kRecordFields);
  ASSIGN_OR_RETURN(
      const int status,
      session.Finish(document, text, located ? kExitDone : ExitStatus(located.error())));
  if (!located && !session.terminal().json()) session.terminal().PrintError(located.error());
  return status;
}

Result<int> DoRemove(const TokenRemoveOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::vector<std::string> stranded, StrandedKeys(*agent, options.name));
  if (stranded.empty()) {
    session.terminal().Note("no escrowed key depends on this token alone");
  }
  for (const std::string& key : stranded) {
    session.terminal().Warn("without this token no path of " + key + " can be opened");
  }
  std::string what = "to remove the token " + options.name;
  if (session.terminal().json() && !stranded.empty()) {
    what += fmt::format(", without which no path of {} can be opened,", fmt::join(stranded, ", "));
  }
  RETURN_IF_ERROR(session.Confirm(what, options.name));
  RETURN_IF_ERROR(RemoveToken(*agent, options.name));
  Json document = NewDocument("token remove");
  document["name"] = options.name;
  document["stranded"] = ListJson(stranded);
  const std::string text =
      "removed token:" + EscapeForTerminal(options.name) + "; the key on it was left alone\n" +
      (stranded.empty() ? "" : "stranded by this: " + Count(stranded.size(), "envelope") + "\n");
  return session.Finish(document, text, stranded.empty() ? kExitDone : kExitFindings);
}

}  // namespace

int RunTokenAdd(const GlobalOptions& /*global*/, const TokenAddOptions& options, Session& session) {
  return session.Exit(DoAdd(options, session));
}

int RunTokenKeygen(const GlobalOptions& /*global*/, const TokenKeygenOptions& options,
                   Session& session) {
  return session.Exit(DoKeygen(options, session));
}

int RunTokenList(const GlobalOptions& /*global*/, const TokenListOptions& /*options*/,
                 Session& session) {
  return session.Exit(DoList(session));
}

int RunTokenShow(const GlobalOptions& /*global*/, const TokenShowOptions& options,
                 Session& session) {
  return session.Exit(DoShow(options, session));
}

int RunTokenRemove(const GlobalOptions& /*global*/, const TokenRemoveOptions& options,
                   Session& session) {
  return session.Exit(DoRemove(options, session));
}

}  // namespace keyescrow::agent
