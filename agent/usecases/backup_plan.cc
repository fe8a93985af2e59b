#include "agent/usecases/backup_plan.h"

#include <algorithm>

#include "agent/policy/facts.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/registry.h"
#include "envelope/base/hash.h"
#include "envelope/header.h"
#include "envelope/password.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

Status CheckKeyName(const std::string& name) {
  if (envelope::IsKeyName(name)) return Ok();
  return Error(ErrorCode::kInvalidName, Action::kFixInput, "\"" + name + "\" is not a key name",
               "a key name has letters, digits, '.', '_' and '-' in segments of at most 64, "
               "joined by '/', at most 128 in all; no segment is '.' or '..'");
}

Result<std::vector<envelope::PathOption>> PathsInUse(Agent& agent, const std::string& key_name) {
  std::vector<envelope::PathOption> options;
  const auto newest = agent.store().FindEnvelope(key_name, std::nullopt);
  if (!newest) {
    if (newest.error().code() == ErrorCode::kKeyNotFound) return options;
    return newest.error();
  }
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(newest->bytes, trust));
  if (sealed.header().host != agent.identity().host) return options;
  ASSIGN_OR_RETURN(const auto tokens, agent.store().Tokens());
  for (const policy::PathFacts& path : policy::FactsOf(sealed.header()).paths) {
    const auto rename = [&](std::string& name) {
      for (const policy::TokenUse& use : path.tokens) {
        if (use.name != name) continue;
        for (const store::TokenRecord& token : tokens) {
          if (Sha256(token.spki) == use.spki_sha256) name = token.name;
        }
        return;
      }
    };
    envelope::PathOption& option =
        options.emplace_back(envelope::PathOption{path.id, path.expression});
    for (envelope::FactorTerm& term : option.expression.factors) {
      if (term.kind == envelope::FactorKind::kToken) rename(term.name);
      for (std::string& member : term.members) rename(member);
    }
    // Read again, for the order that names have.
    ASSIGN_OR_RETURN(option.expression, envelope::ParsePathExpression(
                                            envelope::FormatPathExpression(option.expression)));
  }
  return options;
}

Result<bool> NeedsPassword(const std::vector<std::string>& paths) {
  ASSIGN_OR_RETURN(const auto options, envelope::ParsePathOptions(paths));
  return std::any_of(options.begin(), options.end(), [](const envelope::PathOption& option) {
    return option.expression.Has(envelope::FactorKind::kPassword);
  });
}

Status CheckPasswordOf(Agent& agent, const std::string& key_name,
                       const std::vector<std::string>& paths, const SecretBytes& typed) {
  ASSIGN_OR_RETURN(const SecretBytes password, envelope::NormalizePassword(typed));
  ASSIGN_OR_RETURN(const auto options, envelope::ParsePathOptions(paths));
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  const PasswordUse use{in_force->policy.name, key_name, agent.identity().host};
  for (const envelope::PathOption& option : options) {
    if (!option.expression.Has(envelope::FactorKind::kPassword)) continue;
    RETURN_IF_ERROR(CheckNewPassword(agent, use, option, password));
  }
  return Ok();
}

Result<std::vector<PathOffer>> OfferPaths(Agent& agent, const std::string& key_name) {
  using Kind = PathOffer::Kind;
  std::vector<PathOffer> offers;
  ASSIGN_OR_RETURN(const auto planned, PlannedPaths(agent, key_name));
  if (!planned.empty()) {
    PathOffer& offer = offers.emplace_back();
    for (const envelope::PathOption& option : planned) {
      offer.paths.push_back(option.id + "=" + envelope::FormatPathExpression(option.expression));
    }
  }
  const DeclaredKey* declared = agent.environment().config->FindKey(key_name);
  if (declared != nullptr && !declared->paths.empty()) {
    offers.push_back({Kind::kDeclared, declared->paths});
  }
  const std::string with_tpm = "password & tpm";
  Devices& devices = *agent.environment().devices;
  const bool has_tpm = devices.Tpm().has_value();
  ASSIGN_OR_RETURN(const auto tokens, agent.store().Tokens());
  for (const store::TokenRecord& token : tokens) {
    const std::string with_token = "password & token:" + token.name;
    std::optional<Error> away;
    if (Status located = LocateToken(token, devices); !located) away = located.error();
    if (has_tpm) {
      offers.push_back({Kind::kTokenAndTpm, {with_token, with_tpm}, token.name, away});
    }
    offers.push_back({Kind::kToken, {with_token}, token.name, away});
  }
  if (has_tpm) offers.push_back({Kind::kTpm, {with_tpm}});
  return offers;
}

}  // namespace keyescrow::agent
