// policy show, check, sign, set: signed rules.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/terminal_text.h"
#include "agent/cli/token_uri.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/set_policy.h"
#include "agent/usecases/sign_policy.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kUriPrefix = "pkcs11:";

std::vector<std::string> VkeysOf(const policy::Signers& signers) {
  std::vector<std::string> vkeys;
  for (const auto& key : signers.keys) vkeys.push_back(key.Vkey());
  return vkeys;
}

Json PolicyJson(const policy::Policy& policy) {
  Json json = Json::object();
  json["name"] = policy.name;
  json["serial"] = policy.serial;
  json["sha256"] = EncodeBase64Url(policy.sha256);
  json["mode"] = policy::ModeName(policy.mode);
  json["expires"] = TimeJson(policy.expires);
  json["min_agent_version"] = TextOrNull(policy.min_agent_version);
  json["rules"] = Json::array();
  for (const policy::Rule& rule : policy.rules) {
    json["rules"].push_back({{"name", rule.name},
                             {"match", rule.match},
                             {"mode", policy::ModeName(policy.ModeOf(rule))}});
  }
  json["exceptions"] = Json::array();
  for (const policy::Exception& exception : policy.exceptions) {
    json["exceptions"].push_back({{"key", exception.key},
                                  {"host", TextOrNull(exception.host)},
                                  {"rule", exception.rule},
                                  {"until", TimeJson(exception.until)},
                                  {"reason", exception.reason}});
  }
  return json;
}

Result<int> DoShow(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent->Policy());
  Json document = NewDocument("policy show");
  document.update(PolicyJson(in_force->policy));
  document["builtin"] = in_force->IsBuiltin();
  document["set"] = in_force->IsBuiltin() ? Json(nullptr) : TimeJson(in_force->set_time);
  document["threshold"] = in_force->next_signers.threshold;
  document["signers"] = ListJson(VkeysOf(in_force->next_signers));
  document["text"] = in_force->text;
  document["signature"] = TextOrNull(in_force->note);
  constexpr Column kFields[] = {
      {"serial", "  serial"},    {"mode", "  mode"},
      {"set", "  set"},          {"expires", "  expires"},
      {"sha256", "  sha256"},    {"threshold", "  signatures needed for the next"},
      {"signers", "  of these"},
  };
  constexpr Column kRules[] = {{"name", "rule"}, {"match", "keys"}, {"mode", "mode"}};
  constexpr Column kExceptions[] = {
      {"key", "exception"}, {"host", "host"},  {"rule", "from the rule"},
      {"until", "until"},   {"reason", "why"},
  };
  std::string text = "policy " + EscapeForTerminal(in_force->policy.name) + "\n" +
                     RenderFields(document, kFields) + "\n" +
                     RenderTable(document["rules"], kRules);
  if (!in_force->policy.exceptions.empty()) {
    text += "\n" + RenderTable(document["exceptions"], kExceptions);
  }
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text));
  for (const Finding& finding : in_force->findings) session.terminal().Warn(finding.what);
  if (in_force->IsBuiltin()) {
    session.terminal().Note(
        "nobody's signature of a policy counts here yet: 'policy set FILE "
        "--policy-key VKEY' pins the first signers");
  }
  return status;
}

// EffectText: one key whose standing would change, or that stays non-compliant, with the reasons.
std::string EffectText(const Terminal& terminal, const PolicyEffect& effect) {
  if (effect.would_comply && effect.complies_now) return "";
  const std::string key = EscapeForTerminal(effect.key_name);
  if (effect.would_comply) {
    return terminal.PaintResult(Color::kGreen, "+ " + key + " becomes compliant") + "\n";
  }
  std::string text =
      terminal.PaintResult(effect.complies_now ? Color::kRed : Color::kYellow,
                           effect.complies_now ? "- " + key + " becomes non-compliant"
                                               : "  " + key + " stays non-compliant");
  text += "\n";
  for (const Finding& finding : effect.findings) {
    text += "    " + EscapeForTerminal(finding.what) +
            "\n      remedy: " + EscapeForTerminal(finding.remedy) + "\n";
  }
  return text;
}

Json CheckJson(const PolicyCheck& check) {
  Json json = Json::object();
  json["file"] = check.candidate.file;
  json["policy"] = PolicyJson(check.candidate.policy);
  json["signers"] = ListJson(check.signers);
  json["unverified_signers"] = ListJson(check.unverified_signers);
  json["in_force"] = TextOrNull(check.in_force);
  json["would_be_set"] = check.in_force.empty() ? Json(nullptr) : Json(!check.refusal);
  json["refusal"] = check.refusal ? ErrorJson(*check.refusal) : Json(nullptr);
  json["num_keys"] = check.effects.size();
  json["num_becoming_compliant"] = check.NumBecoming(true);
  json["num_becoming_noncompliant"] = check.NumBecoming(false);
  json["keys"] = Json::array();
  for (const PolicyEffect& effect : check.effects) {
    Json item = Json::object();
    item["name"] = effect.key_name;
    item["complies_now"] = effect.complies_now;
    item["would_comply"] = effect.would_comply;
    item["findings"] = Json::array();
    for (const Finding& finding : effect.findings) {
      item["findings"].push_back({{"rule", finding.rule},
                                  {"policy_rule", TextOrNull(finding.policy_rule)},
                                  {"what", finding.what},
                                  {"remedy", finding.remedy}});
    }
    json["keys"].push_back(std::move(item));
  }
  return json;
}

std::string CheckText(const Terminal& terminal, const PolicyCheck& check) {
  const policy::Policy& policy = check.candidate.policy;
  std::string text = fmt::format("policy {} serial {}, mode {}: {}, no two contradict each other\n",
                                 EscapeForTerminal(policy.name), policy.serial,
                                 policy::ModeName(policy.mode), Count(policy.rules.size(), "rule"));
  const auto joined = [](const std::vector<std::string>& names) {
    return EscapeForTerminal(fmt::format("{}", fmt::join(names, ", ")));
  };
  text += "signed by: " + (check.signers.empty() ? "nobody" : joined(check.signers)) + "\n";
  if (!check.unverified_signers.empty()) {
    text += "not verified: by no key that counts here, a signature that names " +
            joined(check.unverified_signers) + "\n";
  }
  if (check.in_force.empty()) return text + "no state here: no key was held against it\n";
  text +=
      check.refusal
          ? "'policy set' would refuse it: " + EscapeForTerminal(check.refusal->message()) + "\n"
          : "'policy set' would take it\n";
  text +=
      fmt::format("against {}, in force: of {}, {} become non-compliant and {} become compliant\n",
                  EscapeForTerminal(check.in_force), Count(check.effects.size(), "escrowed key"),
                  check.NumBecoming(false), check.NumBecoming(true));
  for (const PolicyEffect& effect : check.effects) text += EffectText(terminal, effect);
  return text;
}

Result<int> DoCheck(const PolicyCheckOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(true));
  ASSIGN_OR_RETURN(const PolicyCheck check, CheckPolicy(agent, options.file, options.policy_keys));
  Json document = NewDocument("policy check");
  document.update(CheckJson(check));
  // A draft that nobody has signed yet, or one that is in force already, is looked at all the same.
  const bool untrusted = check.refusal && (check.refusal->code() == ErrorCode::kPolicySignature ||
                                           check.refusal->code() == ErrorCode::kPolicySigners);
  return session.Finish(document, CheckText(session.terminal(), check),
                        untrusted                       ? ExitStatus(*check.refusal)
                        : check.NumBecoming(false) == 0 ? kExitDone
                                                        : kExitFindings);
}

Result<int> DoSign(const PolicySignOptions& options, Session& session) {
  SignPolicyRequest request;
  request.file = options.file;
  request.key = options.key;
  request.name = options.name;
  request.use_last_try = options.use_last_try;
  if (!options.token.empty()) {
    request.key = (options.token.starts_with(kUriPrefix) ? "" : "token:") + options.token;
  }
  if (!options.new_key.empty()) {
    ASSIGN_OR_RETURN(const std::string vkey,
                     MakeSigningKey(*session.environment().random, options.new_key, options.name));
    session.terminal().Note("made the key " + options.new_key + " of " +
                            vkey.substr(0, vkey.find('+')) +
                            ": keep it where nobody else reads it");
    request.key = options.new_key;
  }
  Agent* agent = nullptr;
  if (request.key == "agent" || request.key.starts_with("token:")) {
    ASSIGN_OR_RETURN(agent, session.OpenAgent());
  }
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  request.tokens = dynamic_cast<TokenSigning*>(&session.devices());
  request.pins = &secrets->Pins();
  if (request.key.starts_with(kUriPrefix)) {
    ASSIGN_OR_RETURN(TokenPlace place,
                     TakeTokenUri({options.name, request.key, options.module}, session, *secrets));
    request.token = TokenSpec{
        options.name, std::move(place.module), std::move(place.uri), {}, options.use_last_try};
  }
  ASSIGN_OR_RETURN(const SignPolicyResult result, SignPolicy(agent, request));
  if (result.software_token) {
    session.terminal().Warn("the token is SOFTWARE: its keys are files on this host");
  }
  Json document = NewDocument("policy sign");
  document["vkey"] = result.vkey;
  document["policy"] = TextOrNull(result.policy_name);
  document["serial"] = result.policy_name.empty() ? Json(nullptr) : Json(result.serial);
  document["signature_file"] = TextOrNull(result.signature_file);
  document["signers"] = ListJson(result.signers);
  if (result.policy_name.empty()) return session.Finish(document, result.vkey + "\n");
  constexpr Column kFields[] = {
      {"vkey", "  by"}, {"signature_file", "  in"}, {"signers", "  signed so far by"}};
  return session.Finish(
      document, fmt::format("signed: policy {} serial {}\n", EscapeForTerminal(result.policy_name),
                            result.serial) +
                    RenderFields(document, kFields));
}

Result<int> DoSet(const PolicySetOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  session.devices().LastSignature();
  ASSIGN_OR_RETURN(const SetPolicyResult result,
                   SetPolicy(*agent, options.file, options.policy_keys));
  const policy::Policy& policy = result.check.candidate.policy;
  Json document = NewDocument("policy set");
  document.update(CheckJson(result.check));
  document["threshold"] = result.signers.threshold;
  document["log_seq"] = result.log_seq;
  std::string text = fmt::format("in force: policy {} serial {}, mode {}; log entry {}\n",
                                 EscapeForTerminal(policy.name), policy.serial,
                                 policy::ModeName(policy.mode), result.log_seq);
  for (const PolicyEffect& effect : result.check.effects) {
    text += EffectText(session.terminal(), effect);
  }
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text));
  if (policy.mode == policy::Mode::kReport) {
    session.terminal().Note(
        "report mode: nothing is refused; 'keyescrow status' shows what would be");
  }
  return status;
}

}  // namespace

int RunPolicyShow(const GlobalOptions& /*global*/, const PolicyShowOptions& /*options*/,
                  Session& session) {
  return session.Exit(DoShow(session));
}

int RunPolicyCheck(const GlobalOptions& /*global*/, const PolicyCheckOptions& options,
                   Session& session) {
  return session.Exit(DoCheck(options, session));
}

int RunPolicySign(const GlobalOptions& /*global*/, const PolicySignOptions& options,
                  Session& session) {
  return session.Exit(DoSign(options, session));
}

int RunPolicySet(const GlobalOptions& /*global*/, const PolicySetOptions& options,
                 Session& session) {
  return session.Exit(DoSet(options, session));
}

}  // namespace keyescrow::agent
