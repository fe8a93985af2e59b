#include "agent/usecases/enroll.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/registered_recovery_key.h"
#include "envelope/base/pause_point.h"
#include "envelope/base/rsa.h"
#include "envelope/kdf.h"
#include "envelope/password.h"
#include "envelope/shares.h"
#include "envelope/token_wrap.h"

namespace keyescrow::agent {
namespace {

using envelope::EnrolledPath;
using envelope::FactorKind;
using envelope::FactorTerm;
using envelope::PathOption;

constexpr std::size_t kSecretSizeBytes = 32;

Error Unsupported(const std::string& what) {
  return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
               what + " cannot be made by this version",
               "use password, token:NAME, tpm and K of (token:NAME, ...), joined by '&', or "
               "recovery-key:NAME");
}

Status CheckTerm(Agent& agent, const FactorTerm& term) {
  switch (term.kind) {
    case FactorKind::kPassword: return Ok();
    case FactorKind::kShares:
      for (const std::string& member : term.members) {
        RETURN_IF_ERROR(agent.store().FindToken(member));
      }
      return Ok();
    case FactorKind::kRecoveryKey: {
      auto key = agent.store().FindRecoveryKey(term.name);
      if (!key) return std::move(key).error();
      if (!key->retired) return Ok();
      return Error(
          ErrorCode::kNotFound, Action::kFixInput,
          "the recovery key " + term.name + " is retired: nothing is escrowed to it any more",
          "name another one; 'keyescrow recovery-key list' shows them");
    }
    case FactorKind::kTpm:
      if (term.name.empty() || term.name == agent.identity().host) return Ok();
      return Unsupported("a path to the tpm of another host");
    case FactorKind::kToken: {
      auto token = agent.store().FindToken(term.name);
      if (!token) return std::move(token).error();
      return Ok();
    }
  }
  return Unsupported("this path");
}

Result<envelope::TokenKey> FindKey(Agent& agent, const std::string& name) {
  ASSIGN_OR_RETURN(const store::TokenRecord token, agent.store().FindToken(name));
  return envelope::TokenKey{token.name, token.spki, token.uri};
}

// KeyLike takes the key from the factor that is made again, or from the list of tokens.
Result<envelope::TokenKey> KeyLike(Agent& agent, const std::string& name,
                                   const envelope::FactorRecord* like) {
  if (like != nullptr) {
    if (const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(like)) {
      return envelope::TokenKey{rsa->token, rsa->spki, rsa->uri, rsa->hash};
    }
    if (const auto* ecdh = std::get_if<envelope::Pkcs11EcdhRecord>(like)) {
      return envelope::TokenKey{ecdh->token, ecdh->spki, ecdh->uri};
    }
  }
  return FindKey(agent, name);
}

// WrapError is that of wrapping to a registered public key.
Error WrapError(Error error) {
  if (error.code() != ErrorCode::kFactorBad) return error;
  return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
               "what is registered for a token is no key: " + error.message(),
               "remove the token and add it again");
}

// AddToken wraps a fresh S to the token's public key.
Status AddToken(const EnrollContext& context, const std::string& name,
                const envelope::FactorRecord* like, EnrolledPath& path) {
  ASSIGN_OR_RETURN(const envelope::TokenKey key, KeyLike(*context.agent, name, like));
  auto wrapped = envelope::WrapToToken(key, *context.agent->environment().random);
  if (!wrapped) return WrapError(std::move(wrapped).error());
  std::visit([&](auto& record) { path.factors.emplace_back(std::move(record)); }, wrapped->record);
  path.secrets.push_back(std::move(wrapped->secret));
  return Ok();
}

// AddShares splits a fresh S among the officers' tokens; `binding` is the path's B.
Status AddShares(const EnrollContext& context, const FactorTerm& term, const std::string& binding,
                 const envelope::FactorRecord* like, EnrolledPath& path) {
  const auto* shares_like = like == nullptr ? nullptr : std::get_if<envelope::SharesRecord>(like);
  std::vector<envelope::TokenKey> keys;
  for (const std::string& name : term.members) {
    std::optional<envelope::FactorRecord> member_like;
    for (std::size_t i = 0; shares_like != nullptr && i < shares_like->members.size(); ++i) {
      const envelope::ShareMember& member = shares_like->members[i];
      if (member.name != name) continue;
      std::visit([&](const auto& record) { member_like = record; }, member.factor);
    }
    ASSIGN_OR_RETURN(envelope::TokenKey key,
                     KeyLike(*context.agent, name, member_like ? &*member_like : nullptr));
    keys.push_back(std::move(key));
  }
  auto shares =
      envelope::EnrollShares(binding, term.threshold, keys, *context.agent->environment().random);
  if (!shares) return WrapError(std::move(shares).error());
  path.factors.emplace_back(std::move(shares->record));
  path.secrets.push_back(std::move(shares->secret));
  return Ok();
}

// LikeOf returns the factor that the `index`th one of the path is made again from, or null.
const envelope::FactorRecord* LikeOf(const EnrollContext& context, const PathOption& option,
                                     std::size_t index) {
  for (const envelope::PathRecord* path : context.remade) {
    if (path->id == option.id && index < path->factors.size()) return &path->factors[index];
  }
  return nullptr;
}

// BindingOf is B of the path that is being enrolled.
std::string BindingOf(const EnrollContext& context, const std::string& path_id) {
  if (!context.recovery_key.empty()) return context.binding;
  const envelope::EnvelopeDraft& draft = context.draft;
  return envelope::PathBinding(draft.key_name, draft.key_version, draft.envelope_id, path_id);
}

std::string UserName() {
  const passwd* entry = getpwuid(getuid());
  return entry != nullptr ? entry->pw_name : "";
}

std::vector<const policy::Rule*> AllRules(const policy::Policy& policy) {
  std::vector<const policy::Rule*> rules;
  for (const policy::Rule& rule : policy.rules) rules.push_back(&rule);
  return rules;
}

// Passwords asks for a path's password and checks it; the same password is stretched once at
// each cost.
class Passwords {
 public:
  explicit Passwords(const EnrollContext& context) : context_(context) {}

  Status Add(const PathOption& option, EnrolledPath& path) {
    context_.progress->Pause();
    ASSIGN_OR_RETURN(const SecretBytes typed,
                     context_.secrets->NewPassword(
                         option.id, context_.recovery_key.empty()
                                        ? "for " + context_.draft.key_name
                                        : "for the recovery key " + context_.recovery_key));
    PausePoint("password-read");
    ASSIGN_OR_RETURN(SecretBytes password, envelope::NormalizePassword(typed));
    const bool is_recovery_key = !context_.recovery_key.empty();
    RETURN_IF_ERROR(CheckNewPassword(
        *context_.agent,
        {context_.draft.policy, is_recovery_key ? context_.recovery_key : context_.draft.key_name,
         context_.draft.host, is_recovery_key},
        option, password));
    const bool hardware = option.expression.HasHardware();
    for (const Known& known : known_) {
      if (known.hardware == hardware || !known.password.EqualsConstantTime(password)) continue;
      return hardware ? PasswordReused(known.path_id, option.id)
                      : PasswordReused(option.id, known.path_id);
    }
    if (context_.check_password) RETURN_IF_ERROR(context_.check_password(password, option));
    const envelope::KdfParameters& kdf = context_.kdfs.Of(option.expression);
    for (const Known& known : known_) {
      if (known.record.kdf != kdf) continue;
      if (!known.password.EqualsConstantTime(password)) continue;
      path.factors.emplace_back(known.record);
      ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::CopyOf(known.secret.Expose()));
      path.secrets.push_back(std::move(secret));
      return Ok();
    }
    ASSIGN_OR_RETURN(envelope::PasswordRecord record,
                     envelope::NewPasswordRecord(kdf, *context_.agent->environment().random));
    context_.progress->Step("stretching the password");
    ASSIGN_OR_RETURN(SecretBytes secret, envelope::StretchPassword(password, record));
    PausePoint("password-stretched");
    RETURN_IF_ERROR(context_.passwords->Remember(password, record, secret));
    ASSIGN_OR_RETURN(SecretBytes copy, SecretBytes::CopyOf(secret.Expose()));
    path.factors.emplace_back(record);
    path.secrets.push_back(std::move(copy));
    known_.push_back(
        {option.id, hardware, std::move(password), std::move(secret), std::move(record)});
    return Ok();
  }

 private:
  struct Known {
    std::string path_id;
    bool hardware = false;
    SecretBytes password;
    SecretBytes secret;
    envelope::PasswordRecord record;
  };
  const EnrollContext& context_;
  std::vector<Known> known_;
};

Status SealToTpm(const EnrollContext& context, const PathOption& option,
                 const envelope::FactorRecord* like, EnrolledPath& path) {
  context.progress->Step("sealing to the tpm");
  ASSIGN_OR_RETURN(envelope::TpmFactor * tpm, context.agent->environment().devices->Tpm());
  ASSIGN_OR_RETURN(SecretBytes secret,
                   RandomSecret(*context.agent->environment().random, kSecretSizeBytes));
  envelope::SealRequest request;
  request.secret = &secret;
  request.host = context.agent->identity().host;
  if (const auto* record = like == nullptr ? nullptr : std::get_if<envelope::Tpm2Record>(like)) {
    request.pcrs = envelope::ParsePcrSelection(record->pcrs).value_or(std::vector<std::uint8_t>());
  }
  SecretBytes auth_value;
  if (option.expression.Has(FactorKind::kPassword)) {
    // The password stands right before the TPM in a path's order.
    ASSIGN_OR_RETURN(auth_value,
                     envelope::DeriveTpmAuth(path.secrets.back(), BindingOf(context, option.id)));
    request.auth_value = &auth_value;
  }
  ASSIGN_OR_RETURN(envelope::Tpm2Record record, tpm->Seal(request));
  path.factors.emplace_back(std::move(record));
  path.secrets.push_back(std::move(secret));
  return Ok();
}

}  // namespace

Error PasswordReused(const std::string& weaker, const std::string& stronger) {
  return Error(ErrorCode::kPasswordWeak, Action::kFixInput,
               "the password of the path " + stronger + " would also open the path " + weaker +
                   " by itself: whoever guesses it there needs the hardware no more",
               "give each of the two paths a password of its own: --new-password-file ID=FILE");
}

Status CheckNewPassword(Agent& agent, const PasswordUse& use, const PathOption& option,
                        const SecretBytes& password) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  // A recovery key serves keys of any name: the profiles of all rules hold for its password.
  auto profiles = policy::PasswordRulesOf(
      in_force->policy, use.is_recovery_key ? AllRules(in_force->policy)
                                            : policy::MatchingRules(in_force->policy, use.name,
                                                                    use.host, agent.Now()));
  const std::string& configured = agent.environment().config->password_profile;
  if (const auto named = envelope::ParsePasswordProfile(configured)) {
    policy::PasswordRule& own = profiles.emplace_back();
    own.name = configured;
    own.profile = *named;
  }
  for (const policy::PasswordRule& profile : profiles) {
    envelope::PasswordRules rules;
    rules.profile = profile.profile;
    rules.min_length = profile.min_length;
    rules.hardware_beside = option.expression.HasHardware();
    rules.context_names = {use.policy, use.name, use.host, UserName()};
    ASSIGN_OR_RETURN(rules.extra_blocklist, LoadBlocklist(agent.store(), *in_force, profile));
    Status checked = envelope::CheckPassword(password, rules);
    if (!checked && profile.name != envelope::PasswordProfileName(profile.profile)) {
      return std::move(checked).error().WithContext("the policy's profile " + profile.name);
    }
    RETURN_IF_ERROR(std::move(checked));
  }
  return Ok();
}

Status CheckPaths(Agent& agent, const std::vector<PathOption>& paths) {
  for (const PathOption& option : paths) {
    for (const FactorTerm& term : option.expression.factors) {
      RETURN_IF_ERROR(CheckTerm(agent, term));
    }
  }
  return Ok();
}

Result<std::vector<EnrolledPath>> EnrollPaths(const EnrollContext& context,
                                              const std::vector<PathOption>& paths) {
  std::vector<EnrolledPath> enrolled;
  Passwords passwords(context);
  for (const PathOption& option : paths) {
    EnrolledPath path;
    path.id = option.id;
    for (std::size_t index = 0; index < option.expression.factors.size(); ++index) {
      const FactorTerm& term = option.expression.factors[index];
      const envelope::FactorRecord* like = LikeOf(context, option, index);
      if (term.kind == FactorKind::kToken) {
        RETURN_IF_ERROR(AddToken(context, term.name, like, path));
      } else if (term.kind == FactorKind::kShares) {
        RETURN_IF_ERROR(AddShares(context, term, BindingOf(context, option.id), like, path));
      } else if (term.kind == FactorKind::kRecoveryKey) {
        ASSIGN_OR_RETURN(const auto row, context.agent->store().FindRecoveryKey(term.name));
        ASSIGN_OR_RETURN(path.recovery_key, ReadRegistered(row));
      } else if (term.kind == FactorKind::kPassword) {
        RETURN_IF_ERROR(passwords.Add(option, path));
      } else {
        RETURN_IF_ERROR(SealToTpm(context, option, like, path));
      }
    }
    enrolled.push_back(std::move(path));
  }
  return enrolled;
}

}  // namespace keyescrow::agent
