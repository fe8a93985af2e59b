#include "agent/usecases/token_names.h"

#include <algorithm>

#include "agent/usecases/token_sessions.h"

namespace keyescrow::agent {

Result<Secrets::TokenNames> TokensOf(const envelope::PathRecord& path, store::EscrowStore* store) {
  std::vector<store::TokenRecord> registered;
  if (store != nullptr) {
    ASSIGN_OR_RETURN(registered, store->Tokens());
  }
  Secrets::TokenNames names;
  const auto add = [&](const std::string& name, const Bytes& spki) {
    const auto known = std::ranges::find(registered, spki, &store::TokenRecord::spki);
    names.insert(known == registered.end() ? name : known->name);
  };
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto token = IdentityOf(factor)) add(*token->token, *token->spki);
    const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
    if (shares == nullptr) continue;
    for (const envelope::ShareMember& member : shares->members) {
      // What an officer is called may be another name than their token's.
      std::visit([&](const auto& record) { add(record.token, record.spki); }, member.factor);
    }
  }
  return names;
}

Secrets::TokenNames TokensOf(const envelope::PathExpression& expression) {
  Secrets::TokenNames names;
  for (const envelope::FactorTerm& term : expression.factors) {
    if (term.kind == envelope::FactorKind::kToken) names.insert(term.name);
    names.insert(term.members.begin(), term.members.end());
  }
  return names;
}

Result<Secrets::TokenNames> TokensToOpen(const envelope::Header& header, const std::string& via,
                                         store::EscrowStore* store) {
  Secrets::TokenNames names;
  for (const envelope::PathRecord& path : header.paths) {
    if (!via.empty() && path.id != via) continue;
    ASSIGN_OR_RETURN(Secrets::TokenNames more, TokensOf(path, store));
    names.merge(more);
  }
  return names;
}

}  // namespace keyescrow::agent
