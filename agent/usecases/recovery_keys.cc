#include "agent/usecases/recovery_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/recovery_key_making.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/token_names.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

// How the reason of an import's factor.enrolled begins.
constexpr std::string_view kImportedRecordReason = "recovery key imported";

using envelope::FactorKind;
using envelope::PathOption;

Status CheckName(const std::string& name) {
  if (envelope::IsName(name)) return Ok();
  return Error(ErrorCode::kInvalidName, Action::kFixInput,
               "\"" + name + "\" is not a recovery key's name",
               "a name has 1 to 64 letters, digits, '.', '_' and '-'");
}

// CheckNew: the name is free. A retired key's is not: its record opens, by its newest password,
// envelopes whose copies have an older one.
Status CheckNew(Agent& agent, const std::string& name) {
  RETURN_IF_ERROR(CheckName(name));
  const auto existing = agent.store().FindRecoveryKey(name);
  if (!existing) {
    if (existing.error().code() == ErrorCode::kNotFound) return Ok();
    return existing.error();
  }
  return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
               existing->retired ? "a recovery key of the name " + name +
                                       " was retired, and its record is kept for what it opens"
                                 : "a recovery key is registered as " + name + " already",
               "choose another name");
}

// CheckPins holds name and public half against what the policy in force pins; true where it pins
// them. A thumbprint of "" is that of a key which is not made yet: no pin can name it.
Result<bool> CheckPins(Agent& agent, const std::string& name, const std::string& thumbprint,
                       std::vector<std::string>& findings) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  for (const policy::RecoveryKeyPin& pin : in_force->policy.recovery_keys) {
    if (pin.name == name && pin.public_thumbprint == thumbprint) return true;
    if (pin.name != name && pin.public_thumbprint != thumbprint) continue;
    const std::string what = pin.name == name
                                 ? "the policy pins another public key under the name " + name
                                 : "the policy calls this recovery key " + pin.name;
    if (in_force->policy.mode == policy::Mode::kEnforce) {
      return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
                   fmt::format("the policy {} refuses this: {}", in_force->policy.name, what),
                   "import the recovery key that the policy means, or have the policy changed");
    }
    findings.push_back(what);
  }
  return false;
}

std::string ExpressionOf(const envelope::RecoveryKey& key) {
  envelope::PathRecord path;
  path.factors = key.factors;
  return PathExpressionText(path);
}

bool HasTpm(const envelope::RecoveryKey& key) {
  return std::ranges::any_of(key.factors, [](const envelope::FactorRecord& factor) {
    return std::holds_alternative<envelope::Tpm2Record>(factor);
  });
}

// CheckFactors refuses what would lose every key under it with a host, or have it guessed.
Status CheckFactors(Agent& agent, bool needs_tpm, bool has_hardware) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  if (needs_tpm) {
    return Error(ErrorCode::kPathForbidden, Action::kFixInput,
                 "one host's tpm would be needed to open the recovery key: every key that is "
                 "escrowed to it would be lost with that host",
                 "protect it by tokens or officers: --path 'password & token:NAME'");
  }
  if (!has_hardware && in_force->policy.mode == policy::Mode::kEnforce) {
    return Error(ErrorCode::kPathForbidden, Action::kFixInput,
                 "a password alone would protect the recovery key, and every key that is escrowed "
                 "to it: it can be guessed from a copy of any envelope",
                 "add a token: --path 'password & token:NAME'");
  }
  return Ok();
}

// CheckOwnPath refuses what a recovery key's own path cannot be.
Status CheckOwnPath(Agent& agent, const PathOption& option) {
  if (option.expression.Has(FactorKind::kRecoveryKey)) {
    return Error(ErrorCode::kInvalidPath, Action::kFixInput,
                 "a recovery key is not protected by another one",
                 "protect it by tokens, officers' shares, or a password beside these");
  }
  RETURN_IF_ERROR(
      CheckFactors(agent, option.expression.NeedsTpm(), option.expression.HasHardware()));
  return CheckPaths(agent, {option});
}

// SameOfficers: both are shares, with one threshold and the same officers' keys; or neither is.
bool SameOfficers(const envelope::FactorRecord& left, const envelope::FactorRecord& right) {
  const auto* one = std::get_if<envelope::SharesRecord>(&left);
  const auto* other = std::get_if<envelope::SharesRecord>(&right);
  if (one == nullptr || other == nullptr) return one == other;
  const auto same = [](const envelope::ShareMember& first, const envelope::ShareMember& second) {
    const auto spki = [](const auto& factor) { return factor.spki; };
    return first.name == second.name &&
           std::visit(spki, first.factor) == std::visit(spki, second.factor);
  };
  return one->threshold == other->threshold &&
         std::ranges::equal(one->members, other->members, same);
}

// SameKeys: the new factors are of the same tokens and officers as the old ones.
bool SameKeys(const std::vector<envelope::FactorRecord>& left,
              const std::vector<envelope::FactorRecord>& right) {
  return std::ranges::equal(left, right, [](const auto& one, const auto& other) {
    const auto first = IdentityOf(one);
    const auto second = IdentityOf(other);
    return one.index() == other.index() && first.has_value() == second.has_value() &&
           (!first || *first->spki == *second->spki) && SameOfficers(one, other);
  });
}

// ChangeSecrets refuses a new password that is the old one, and keeps it to prove what it makes.
class ChangeSecrets final : public Secrets {
 public:
  explicit ChangeSecrets(Secrets& inner) : inner_(inner) {}
  CeremonyDesk* Desk() override { return inner_.Desk(); }
  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) override {
    const bool is_new = !fresh_.empty();  // to prove what was registered
    if (is_new) return SecretBytes::CopyOf(fresh_.Expose());
    ASSIGN_OR_RETURN(SecretBytes typed, inner_.Password(path_id, purpose));
    ASSIGN_OR_RETURN(old_, envelope::NormalizePassword(typed));
    return typed;
  }
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) override {
    ASSIGN_OR_RETURN(SecretBytes typed, inner_.NewPassword(path_id, purpose));
    ASSIGN_OR_RETURN(const SecretBytes normalized, envelope::NormalizePassword(typed));
    if (normalized.EqualsConstantTime(old_)) {
      return Error(ErrorCode::kUsage, Action::kFixInput, "the new password is the old one",
                   "give another one; in a script with --new-password-file FILE");
    }
    ASSIGN_OR_RETURN(fresh_, SecretBytes::CopyOf(typed.Expose()));
    return typed;
  }
  envelope::PinProvider& Pins() override { return inner_.Pins(); }
  bool HasPin(std::string_view token_name) override { return inner_.HasPin(token_name); }
  Status MayAsk(const std::function<Result<TokenNames>()>& names) override {
    return inner_.MayAsk(names);
  }
  Status ConfirmLoss() override { return inner_.ConfirmLoss(); }

 private:
  Secrets& inner_;
  SecretBytes old_;
  SecretBytes fresh_;
};

// CheckReplacement: an import never takes the place of a newer record, nor of one that is nowhere
// else: its private half would be lost to whoever knows the newer password alone. The log tells.
Status CheckReplacement(Agent& agent, const store::RecoveryKeyRecord& existing,
                        const Bytes32& replacement) {
  const std::string old_hash = EncodeBase64Url(existing.sha256);
  const std::string new_hash = EncodeBase64Url(replacement);
  std::optional<std::uint64_t> registered_before;
  bool is_elsewhere = false;
  RETURN_IF_ERROR(agent.store().Entries(0, "", [&](const store::LogEntry& entry) {
    const std::string_view text = AsText(entry.bytes);
    if (text.find(old_hash) == std::string_view::npos &&
        text.find(new_hash) == std::string_view::npos) {
      return true;
    }
    const auto event = audit::ParseEvent(text);
    if (!event || event->source == audit::kStatelessSource || event->paths.size() != 1 ||
        event->paths.front().factors.empty()) {
      return true;
    }
    const audit::EventFactor& told = event->paths.front().factors.front();
    if (told.kind != kRecoveryKeyKind || told.id != existing.name) return true;
    if (told.key_sha256 == replacement && event->type == audit::EventType::kFactorEnrolled) {
      registered_before = entry.seq;
    }
    is_elsewhere = is_elsewhere || (told.key_sha256 == existing.sha256 &&
                                    (event->type == audit::EventType::kAuditExported ||
                                     (event->type == audit::EventType::kFactorEnrolled &&
                                      event->reason.starts_with(kImportedRecordReason))));
    return true;
  }));
  if (registered_before) {
    return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                 "this record of the recovery key " + existing.name +
                     " was registered before (entry " + std::to_string(*registered_before) +
                     "), and the one that is registered now took its place",
                 "keep the newer one: envelopes that were made with the older record carry it, and "
                 "still open by its password");
  }
  if (is_elsewhere) return Ok();
  return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
               "the record of the recovery key " + existing.name +
                   " that is registered here was never exported: it may be the only copy",
               "write it with 'keyescrow recovery-key export " + existing.name +
                   " -o FILE', then import the other one again");
}

}  // namespace

audit::EventPath RecoveryKeyEvent(const envelope::RecoveryKey& key) {
  audit::EventPath path;
  path.factors.push_back({std::string(kRecoveryKeyKind), key.record.name, key.Sha256(), ""});
  const envelope::PathRecord own = RecoveryKeyPath(key);
  std::vector<audit::EventPath> described = DescribePaths({&own});
  for (audit::EventFactor& factor : described.front().factors) {
    path.factors.push_back(std::move(factor));
  }
  return path;
}

Result<RecoveryKeyState> DescribeRecoveryKey(const store::RecoveryKeyRecord& row) {
  ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
  return RecoveryKeyState{row, ExpressionOf(key), !HasTpm(key)};
}

Result<std::vector<RecoveryKeyState>> ListRecoveryKeys(Agent& agent) {
  ASSIGN_OR_RETURN(const auto rows, agent.store().RecoveryKeys());
  std::vector<RecoveryKeyState> keys;
  for (const store::RecoveryKeyRecord& row : rows) {
    ASSIGN_OR_RETURN(RecoveryKeyState key, DescribeRecoveryKey(row));
    keys.push_back(std::move(key));
  }
  return keys;
}

Result<RecoveryKeyState> ShowRecoveryKey(Agent& agent, const std::string& name) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(name));
  return DescribeRecoveryKey(row);
}

Result<RecoveryKeyChange> CreateRecoveryKey(Agent& agent, const RecoveryKeyRequest& request,
                                            Secrets& secrets, Progress& progress) {
  RETURN_IF_ERROR(CheckNew(agent, request.name));
  ASSIGN_OR_RETURN(PathOption option, envelope::ParsePathOption(request.path));
  RETURN_IF_ERROR(CheckOwnPath(agent, option));
  std::vector<std::string> findings;
  RETURN_IF_ERROR(CheckPins(agent, request.name, "", findings));
  RETURN_IF_ERROR(agent.store().CheckWritable());
  RETURN_IF_ERROR(secrets.MayAsk([&]() -> Result<Secrets::TokenNames> {
    return request.prove_none ? Secrets::TokenNames() : TokensOf(option.expression);
  }));
  ASSIGN_OR_RETURN(const P256KeyPair pair,
                   envelope::NewRecoveryKeyPair(*agent.environment().random));
  StretchedPasswords passwords;
  ASSIGN_OR_RETURN(
      const envelope::RecoveryKey key,
      EnrollRecoveryKey(agent, request, pair, std::move(option), secrets, progress, passwords));
  RecoveryKeyRegistration registration{"recovery key made", std::nullopt, std::move(findings)};
  if (!request.prove_none) {
    RETURN_IF_ERROR(ProveRecoveryKey(agent, key, secrets, progress, passwords, registration));
  }
  return RegisterRecoveryKey(agent, key, std::move(registration));
}

Result<RecoveryKeyChange> ChangeRecoveryKeyPassword(Agent& agent, const RecoveryKeyRequest& request,
                                                    Secrets& outer, Progress& progress) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(request.name));
  ASSIGN_OR_RETURN(const envelope::RecoveryKey old, ReadRegistered(row));
  ASSIGN_OR_RETURN(PathOption option, envelope::ParsePathOption(ExpressionOf(old)));
  if (!option.expression.Has(FactorKind::kPassword)) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the recovery key " + request.name + " has no password",
                 "it opens by " + ExpressionOf(old) + "; make a new one to change that");
  }
  if (row.retired) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 "the recovery key " + request.name + " is retired",
                 "what is escrowed to it opens with the password it has");
  }
  RETURN_IF_ERROR(CheckPaths(agent, {option}));
  RETURN_IF_ERROR(agent.store().CheckWritable());
  RETURN_IF_ERROR(outer.MayAsk([&]() -> Result<Secrets::TokenNames> {
    return TokensOf(RecoveryKeyPath(old), &agent.store());
  }));
  ChangeSecrets secrets(outer);
  if (CeremonyDesk* const desk = secrets.Desk()) desk->SetWaits(true);
  StretchedPasswords passwords;
  std::optional<envelope::RecoveryKey> changed;
  {
    PathOpener opener(RecoveryKeyOpening(agent, request.name, secrets, progress), passwords);
    ASSIGN_OR_RETURN(const envelope::OpenedRecoveryKey opened, opener.OpenRecoveryKey(old));
    opener.Finish();
    ASSIGN_OR_RETURN(changed, EnrollRecoveryKey(agent, request, opened.pair(), std::move(option),
                                                secrets, progress, passwords));
  }
  if (!SameKeys(old.factors, changed->factors)) {
    return Error(ErrorCode::kTokenNotRegistered, Action::kFixInput,
                 "a token of this recovery key is registered here with another key than its own",
                 "register the right token under that name; nothing was changed");
  }
  RecoveryKeyRegistration registration{
      "password changed; the record before it was " + EncodeBase64Url(row.sha256), row.sha256, {}};
  RETURN_IF_ERROR(ProveRecoveryKey(agent, *changed, secrets, progress, passwords, registration));
  return RegisterRecoveryKey(agent, *changed, std::move(registration));
}

std::optional<Bytes32> ParseSha256(std::string_view text) {
  Bytes32 hash{};
  if (const auto bytes = DecodeBase64Url(text); bytes && bytes->size() == hash.size()) {
    std::copy(bytes->begin(), bytes->end(), hash.begin());
    return hash;
  }
  if (text.size() != 2 * hash.size()) return std::nullopt;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const char digit = text[index];
    const bool number = digit >= '0' && digit <= '9';
    if (!number && (digit < 'a' || digit > 'f')) return std::nullopt;
    const int value = number ? digit - '0' : digit - 'a' + 10;
    std::uint8_t& byte = hash[index / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | value);
  }
  return hash;
}

Result<RecoveryKeyImport> ImportRecoveryKey(Agent& agent, const std::string& file,
                                            const ConfirmRecord& confirm) {
  ASSIGN_OR_RETURN(
      const EnvelopeSource source,
      FindEnvelope(nullptr, file.starts_with("file:") ? file : "file:" + file, std::nullopt));
  auto parsed = envelope::ParseRecoveryKey(AsText(source.bytes));
  if (!parsed) return std::move(parsed).error().WithContext(file);
  const envelope::RecoveryKey& key = *parsed;
  RecoveryKeyImport result;
  const auto existing = agent.store().FindRecoveryKey(key.record.name);
  if (existing && existing->sha256 == key.Sha256() && !existing->retired) {
    ASSIGN_OR_RETURN(result.change.key, DescribeRecoveryKey(*existing));
    result.already_there = true;
    return result;
  }
  // The record of the same pair after a change of its password takes the old one's place.
  const bool same_pair = existing && existing->thumbprint == key.Thumbprint();
  if (!same_pair) RETURN_IF_ERROR(CheckNew(agent, key.record.name));
  if (same_pair && existing->sha256 != key.Sha256()) {
    RETURN_IF_ERROR(CheckReplacement(agent, *existing, key.Sha256()));
  }
  const bool has_hardware = std::ranges::any_of(key.factors, [](const auto& factor) {
    return !std::holds_alternative<envelope::PasswordRecord>(factor);
  });
  RETURN_IF_ERROR(CheckFactors(agent, HasTpm(key), has_hardware));
  std::vector<std::string> findings;
  ASSIGN_OR_RETURN(const bool pinned,
                   CheckPins(agent, key.record.name, key.Thumbprint(), findings));
  const store::RecoveryKeyRecord row = RecoveryKeyRow(agent, key);
  ASSIGN_OR_RETURN(const RecoveryKeyState state, DescribeRecoveryKey(row));
  // A pin names the public half alone, which every envelope shows: a replacement is confirmed.
  RETURN_IF_ERROR(confirm(state, row.sha256, pinned && !same_pair));
  std::string reason(kImportedRecordReason);
  reason += pinned ? "; the policy pins its public half" : "; its SHA-256 was confirmed";
  if (same_pair) reason += "; the record before it was " + EncodeBase64Url(existing->sha256);
  RecoveryKeyRegistration registration{std::move(reason), std::nullopt, std::move(findings)};
  registration.why_not = "an import opens nothing";
  if (existing && existing->retired) {
    registration.findings.push_back("the recovery key " + key.record.name + " was retired on " +
                                    FormatUtc(*existing->retired) + ", and is in use again");
  }
  if (existing) registration.replaces = existing->sha256;
  ASSIGN_OR_RETURN(result.change, RegisterRecoveryKey(agent, key, std::move(registration)));
  result.change.findings.push_back(
      "the recovery key was never opened here: prove it where its factors are, with 'keyescrow "
      "drill recovery-key:" +
      key.record.name + "'");
  return result;
}

Result<RecoveryKeyState> ExportRecoveryKey(Agent& agent, const std::string& name,
                                           const std::string& sink) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(name));
  ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  // The record is public; its private half is encrypted inside.
  ASSIGN_OR_RETURN(const SecretBytes bytes, SecretBytes::CopyOf(AsBytes(key.text + "\n")));
  RETURN_IF_ERROR(location->Write(bytes, {}));
  audit::Event event;
  event.type = audit::EventType::kAuditExported;
  event.paths.push_back(RecoveryKeyEvent(key));
  event.reason = "record of a recovery key";
  RETURN_IF_ERROR(agent.journal().Append(std::move(event)));
  return DescribeRecoveryKey(row);
}

Result<RecoveryKeyUse> UseOfRecoveryKey(Agent& agent, const std::string& name) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(name));
  ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  RecoveryKeyUse use;
  std::optional<Error> failed;
  store::EscrowStore::EnvelopeQuery query;
  query.with_bytes = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) {
      failed = std::move(sealed).error().WithContext(record.key_name);
      return false;
    }
    const auto& paths = sealed->header().paths;
    const auto num_under = std::ranges::count_if(
        paths, [&](const envelope::PathRecord& path) { return key.IsIn(path); });
    if (num_under > 0) ++use.num_envelopes;
    if (num_under == std::ssize(paths)) {
      use.stranded.push_back(record.key_name + " version " + std::to_string(record.key_version));
    }
    return true;
  }));
  if (failed) return *failed;
  return use;
}

Status RetireRecoveryKey(Agent& agent, const std::string& name) {
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(name));
  ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
  if (row.retired) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 "the recovery key " + name + " is retired already",
                 "'keyescrow recovery-key list' shows them");
  }
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  for (const policy::Rule& rule : in_force->policy.rules) {
    if (in_force->policy.ModeOf(rule) != policy::Mode::kEnforce) continue;
    const bool required =
        std::ranges::any_of(rule.require, [&](const envelope::PathExpression& path) {
          return path.factors.front().kind == FactorKind::kRecoveryKey &&
                 path.factors.front().name == name;
        });
    if (!required) continue;
    return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
                 fmt::format("the policy {} refuses this: its rule \"{}\" requires a path to the "
                             "recovery key {}",
                             in_force->policy.name, rule.name, name),
                 "have the policy changed first");
  }
  audit::Event event;
  event.type = audit::EventType::kFactorRemoved;
  event.paths.push_back(RecoveryKeyEvent(key));
  event.reason = "recovery key retired";
  store::Change change;
  change.retired_recovery_keys.push_back(name);
  change.removal_time = agent.Now();
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return Ok();
}

}  // namespace keyescrow::agent
