#include "agent/policy/facts.h"

#include <algorithm>
#include <variant>

#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::FactorKind;
using envelope::FactorTerm;

// Reader adds one factor of a header to a path's facts.
struct Reader {
  const std::string& host;
  PathFacts& path;

  void operator()(const envelope::Pkcs11RsaRecord& record) const {
    Token(record.token, record.spki);
    Add({FactorKind::kToken, record.token, 0, {}});
  }
  void operator()(const envelope::Pkcs11EcdhRecord& record) const {
    Token(record.token, record.spki);
    Add({FactorKind::kToken, record.token, 0, {}});
  }
  void operator()(const envelope::SharesRecord& record) const {
    FactorTerm term{FactorKind::kShares, "", record.threshold, {}};
    for (const envelope::ShareMember& member : record.members) {
      term.members.push_back(member.name);
      std::visit([&](const auto& factor) { Token(member.name, factor.spki); }, member.factor);
    }
    std::sort(term.members.begin(), term.members.end());
    Add(std::move(term));
  }
  void operator()(const envelope::PasswordRecord& record) const {
    path.kdf = record.kdf;
    Add({FactorKind::kPassword, "", 0, {}});
  }
  void operator()(const envelope::Tpm2Record& record) const {
    Add({FactorKind::kTpm, record.host == host ? "" : record.host, 0, {}});
  }

 private:
  void Token(const std::string& name, const Bytes& spki) const {
    path.tokens.push_back({name, Sha256(spki)});
  }
  void Add(FactorTerm term) const { path.expression.factors.push_back(std::move(term)); }
};

}  // namespace

KeyFacts FactsOf(const envelope::Header& header) {
  KeyFacts key;
  key.name = header.key_name;
  key.host = header.host;
  key.version = header.key_version;
  key.created = ParseUtc(header.created).value_or(0);
  key.first_created = key.created;
  for (const envelope::PathRecord& record : header.paths) {
    PathFacts& path = key.paths.emplace_back();
    path.id = record.id;
    for (const envelope::FactorRecord& factor : record.factors) {
      std::visit(Reader{header.host, path}, factor);
    }
    if (record.recovery_key) {
      // The path is to the recovery key; what its own paths ask for stands in its factors.
      path.recovery_factors = std::move(path.expression);
      path.expression.factors = {
          FactorTerm{FactorKind::kRecoveryKey, record.recovery_key->name, 0, {}}};
      if (record.recovery_key->public_key) {
        path.recovery_thumbprint = JwkThumbprint(*record.recovery_key->public_key);
      }
    }
  }
  return key;
}

}  // namespace keyescrow::agent::policy
