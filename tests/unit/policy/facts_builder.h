// Facts for the tests of evaluation, as short as a row of a table.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "agent/policy/facts.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::policy {

inline constexpr std::int64_t kNow = 1798761600;  // 2027-01-01T00:00:00Z
inline constexpr std::int64_t kDay = 86400;

// KeyOf is the hash of a token's public key that belongs to a name.
inline Bytes32 KeyOf(const std::string& name) { return Sha256(AsBytes("key of " + name)); }

// KeyBuilder: a key of the host db1, of version 1, made 10 days ago.
class KeyBuilder {
 public:
  explicit KeyBuilder(std::string name) {
    key_.name = std::move(name);
    key_.host = "db1";
    key_.version = 1;
    key_.created = key_.first_created = kNow - 10 * kDay;
  }
  operator KeyFacts() const { return key_; }  // NOLINT

  // Path adds one; each token has the key of its name.
  KeyBuilder& Path(const std::string& id, const std::string& expression) {
    PathFacts& path = key_.paths.emplace_back();
    path.id = id;
    path.expression = *envelope::ParsePathExpression(expression);
    for (const envelope::FactorTerm& term : path.expression.factors) {
      if (term.kind == envelope::FactorKind::kPassword) path.kdf = envelope::Argon2idParameters{};
      if (term.kind == envelope::FactorKind::kToken)
        path.tokens.push_back({term.name, KeyOf(term.name)});
      for (const std::string& member : term.members) path.tokens.push_back({member, KeyOf(member)});
    }
    return *this;
  }
  // What follows is of the path that was added last.
  KeyBuilder& Proven(std::int64_t days_ago) {
    key_.paths.back().proven = kNow - days_ago * kDay;
    key_.paths.back().proven_this_revision = true;
    return *this;
  }
  KeyBuilder& ProvenBeforeEdit(std::int64_t days_ago) {
    Proven(days_ago);
    key_.paths.back().proven_this_revision = false;
    return *this;
  }
  KeyBuilder& Failed(std::int64_t days_ago) {
    key_.paths.back().failed = kNow - days_ago * kDay;
    key_.paths.back().failure = "token_key_not_found";
    return *this;
  }
  KeyBuilder& Kdf(envelope::KdfParameters kdf) {
    key_.paths.back().kdf = kdf;
    return *this;
  }
  KeyBuilder& TokenKey(const std::string& name, const std::string& key_of) {
    for (TokenUse& token : key_.paths.back().tokens) {
      if (token.name == name) token.spki_sha256 = KeyOf(key_of);
    }
    return *this;
  }
  // Opened: by these, in the end.
  KeyBuilder& Opened(const std::string& expression) {
    KeyFacts own = KeyBuilder("").Path("own", expression);
    key_.paths.back().recovery_factors = own.paths.front().expression;
    key_.paths.back().tokens = own.paths.front().tokens;
    key_.paths.back().kdf = own.paths.front().kdf;
    return *this;
  }
  KeyBuilder& RecoveryKey(std::string thumbprint) {
    key_.paths.back().recovery_thumbprint = std::move(thumbprint);
    return *this;
  }
  // Of the key.
  KeyBuilder& Created(std::int64_t days_ago) {
    key_.created = kNow - days_ago * kDay;
    return *this;
  }
  KeyBuilder& Made(std::int64_t days_ago) {
    key_.made = kNow - days_ago * kDay;
    return *this;
  }
  KeyBuilder& FirstCreated(std::int64_t days_ago) {
    key_.first_created = kNow - days_ago * kDay;
    return *this;
  }
  KeyBuilder& Restored(std::int64_t days_ago) {
    key_.restored = kNow - days_ago * kDay;
    return *this;
  }
  KeyBuilder& Host(std::string host) {
    key_.host = std::move(host);
    return *this;
  }

 private:
  KeyFacts key_;
};

inline Facts AgentFacts() {
  Facts facts;
  facts.host = "db1";
  facts.now = kNow;
  facts.policy_set = kNow - 5 * kDay;
  return facts;
}

}  // namespace keyescrow::agent::policy
