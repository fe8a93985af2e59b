#include "agent/policy/rule_evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <variant>

#include "envelope/base/clock.h"
#include "envelope/password.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::FactorKind;
using envelope::FactorTerm;
using envelope::PathExpression;

// OfHost writes the TPM of the key's own host as `tpm`.
PathExpression OfHost(PathExpression path, const std::string& host) {
  for (FactorTerm& term : path.factors) {
    if (term.kind == FactorKind::kTpm && term.name == host) term.name.clear();
  }
  return path;
}

bool IsFresh(const PathFacts& path, std::int64_t period_s, std::int64_t now) {
  const bool broken = path.failed && (!path.proven || *path.failed >= *path.proven);
  return path.proven && path.proven_this_revision && !broken && now - *path.proven <= period_s;
}

std::string Times(std::size_t count, std::string_view one, std::string_view many) {
  return count == 1 ? fmt::format("one {}", one) : fmt::format("{} {}", count, many);
}

// KdfRemedy: a recovery key's password is stretched as when it was made, whatever is backed up.
std::string KdfRemedy(const PathFacts& path) {
  for (const FactorTerm& term : path.expression.factors) {
    if (term.kind != FactorKind::kRecoveryKey) continue;
    return fmt::format(
        "give the recovery key a new password, which takes the policy's costs: 'keyescrow "
        "recovery-key password {}'; then back the key up again",
        term.name);
  }
  return "back the key up again: the policy's costs are then used";
}

void SortFactors(PathExpression& path) {
  std::sort(path.factors.begin(), path.factors.end(),
            [](const FactorTerm& left, const FactorTerm& right) {
              return std::pair(left.kind, left.name) < std::pair(right.kind, right.name);
            });
}

std::string Day(std::int64_t time) { return FormatUtc(time).substr(0, 10); }

}  // namespace

PathExpression NameByPins(const Policy& policy, const KeyFacts& key, const PathFacts& path,
                          const PathExpression& expression) {
  const auto token_name = [&](const std::string& name) -> std::string {
    const auto use = std::find_if(path.tokens.begin(), path.tokens.end(),
                                  [&](const TokenUse& token) { return token.name == name; });
    if (use == path.tokens.end()) return name;
    for (const TokenPin& pin : policy.tokens) {
      if (pin.spki_sha256 == use->spki_sha256) return pin.name;
    }
    for (const TokenPin& pin : policy.tokens) {
      if (pin.name == name) return name + "!";
    }
    return name;
  };
  PathExpression named = OfHost(expression, key.host);
  for (FactorTerm& term : named.factors) {
    if (term.kind == FactorKind::kToken) term.name = token_name(term.name);
    for (std::string& member : term.members) member = token_name(member);
    std::sort(term.members.begin(), term.members.end());
    if (term.kind != FactorKind::kRecoveryKey) continue;
    for (const RecoveryKeyPin& pin : policy.recovery_keys) {
      if (pin.name == term.name && pin.public_thumbprint != path.recovery_thumbprint) {
        term.name += "!";
        break;
      }
    }
  }
  SortFactors(named);
  return named;
}

PathExpression NameByTokens(const Policy& policy, const Facts& facts, PathExpression expression) {
  const auto local_name = [&](const std::string& name) -> std::string {
    for (const TokenPin& pin : policy.tokens) {
      if (pin.name != name) continue;
      for (const TokenEvidence& token : facts.tokens) {
        if (token.spki_sha256 == pin.spki_sha256) return token.name;
      }
    }
    return name;
  };
  for (FactorTerm& term : expression.factors) {
    if (term.kind == FactorKind::kToken) term.name = local_name(term.name);
    for (std::string& member : term.members) member = local_name(member);
    std::sort(term.members.begin(), term.members.end());
  }
  SortFactors(expression);
  return expression;
}

RuleEvaluator::RuleEvaluator(const Rule& rule, const Subject& subject,
                             std::vector<Finding>& findings)
    : rule_(rule), subject_(subject), findings_(findings) {
  const std::int64_t since = std::max(subject.facts.policy_set, subject.key.first_created);
  const bool in_grace = rule.grace_s > 0 && subject.facts.now < since + rule.grace_s;
  const bool reported = subject.policy.ModeOf(rule) == Mode::kReport;
  enforced_ = subject.as_enforced || (!in_grace && !reported);
  if (subject.as_enforced) return;
  if (reported) {
    suffix_ = " (reported, not enforced)";
  } else if (in_grace) {
    suffix_ = fmt::format(" (in grace until {})", Day(since + rule.grace_s));
  }
}

std::string RuleEvaluator::RuleName() const { return fmt::format("the rule \"{}\"", rule_.name); }

void RuleEvaluator::Add(std::string id, std::string what, std::string remedy) {
  findings_.push_back({std::move(id), subject_.key.name, subject_.key.host,
                       enforced_ ? Severity::kCritical : Severity::kWarning, what + suffix_,
                       std::move(remedy), rule_.name});
}

void RuleEvaluator::Warn(std::string id, std::string what, std::string remedy) {
  findings_.push_back({std::move(id), subject_.key.name, subject_.key.host, Severity::kWarning,
                       what + suffix_, std::move(remedy), rule_.name});
}

void RuleEvaluator::EvaluateShape() {
  Required();
  Forbidden();
  Portable();
  Losses();
  Kdf();
}

void RuleEvaluator::EvaluateTime() {
  Drills();
  Rotation();
}

void RuleEvaluator::Required() {
  for (const PathExpression& path : rule_.require) {
    const PathExpression wanted = OfHost(path, subject_.key.host);
    if (std::find(subject_.paths.begin(), subject_.paths.end(), wanted) != subject_.paths.end()) {
      continue;
    }
    // The hint has the names that the tokens have here. Its id is the policy's, where that counts.
    const std::string id = DefaultPathId(path);
    const bool named = std::find(rule_.drill_paths.begin(), rule_.drill_paths.end(), id) !=
                       rule_.drill_paths.end();
    const PathExpression local = NameByTokens(subject_.policy, subject_.facts, path);
    Add("required_path_missing",
        fmt::format("{} requires the path '{}', and the key has no such path", RuleName(),
                    FormatPathExpression(path)),
        fmt::format("back the key up with --path '{}{}' among its paths",
                    named && DefaultPathId(local) != id ? id + "=" : "",
                    FormatPathExpression(local)));
  }
}

void RuleEvaluator::Forbidden() {
  for (const PathExpression& path : rule_.forbid) {
    const PathExpression forbidden = OfHost(path, subject_.key.host);
    for (std::size_t index = 0; index < subject_.paths.size(); ++index) {
      // A path to a recovery key is the same as what opens that recovery key.
      if (!(subject_.paths[index] == forbidden) && !(subject_.opened_by[index] == forbidden)) {
        continue;
      }
      const bool password_alone =
          forbidden.factors.size() == 1 && forbidden.factors.front().kind == FactorKind::kPassword;
      Add(password_alone ? "password_only_path" : "forbidden_path",
          fmt::format("{} forbids a path of '{}' alone, and the path {} is one", RuleName(),
                      FormatPathExpression(path), subject_.key.paths[index].id),
          subject_.paths[index].Has(FactorKind::kRecoveryKey)
              ? "back the key up to a recovery key that more factors open"
          : password_alone
              ? "back the key up with 'password & token:NAME': a password alone can be "
                "guessed from a copy of the envelope"
              : "back the key up without that path, or with one more factor in it");
    }
  }
}

void RuleEvaluator::Portable() {
  if (!rule_.portable) return;
  const bool any = std::any_of(subject_.opened_by.begin(), subject_.opened_by.end(),
                               [](const PathExpression& path) { return !path.NeedsTpm(); });
  if (any) return;
  Add("no_portable_path",
      fmt::format("{} asks for a portable path, and every path dies with a host's tpm", RuleName()),
      "back the key up with a path that needs no tpm, as 'password & token:NAME'");
}

void RuleEvaluator::Losses() {
  if (rule_.survive == 0 && rule_.withstand == 0) return;
  envelope::ExpressionContext context;
  context.host = subject_.key.host;
  const auto analysed = envelope::Recoverability::Of(subject_.opened_by, context);
  if (!analysed) {
    Add("not_analysed",
        fmt::format("{} cannot be held against the key: {}", RuleName(),
                    analysed.error().message()),
        "back the key up with fewer factors");
    return;
  }
  const auto names = [&](envelope::FactorSet set) {
    return fmt::format("{}", fmt::join(analysed->model().Names(set), " and "));
  };
  if (!analysed->Survives(rule_.survive)) {
    Add("survives_too_little",
        fmt::format(
            "{} asks that the key survives any {}, and the loss of {} makes it unrecoverable",
            RuleName(), Times(rule_.survive, "loss", "losses"),
            names(analysed->minimal_losses().front())),
        "back the key up with one more path that has none of these factors");
  }
  if (!analysed->Withstands(rule_.withstand)) {
    Add("withstands_too_little",
        fmt::format("{} asks that the key withstands any {}, and that of {} opens it", RuleName(),
                    Times(rule_.withstand, "theft", "thefts"),
                    names(analysed->minimal_thefts().front())),
        "back the key up with one more factor in that path");
  }
}

void RuleEvaluator::Kdf() {
  for (const PathFacts& path : subject_.key.paths) {
    if (!path.kdf) continue;
    const std::string remedy = KdfRemedy(path);
    if (const auto* argon2id = std::get_if<envelope::Argon2idParameters>(&*path.kdf)) {
      if (rule_.fips) {
        Add("not_fips",
            fmt::format("{} asks for FIPS-approvable algorithms, and the path {} stretches its "
                        "password by argon2id",
                        RuleName(), path.id),
            "back the key up with --kdf pbkdf2-sha512");
      }
      std::vector<std::string> asked;
      std::vector<std::string> found;
      const auto compare = [&](std::optional<std::uint32_t> least, std::uint32_t has,
                               std::string_view unit) {
        if (!least || has >= *least) return;
        asked.push_back(fmt::format("{} {}", *least, unit));
        found.push_back(fmt::format("{} {}", has, unit));
      };
      compare(rule_.kdf.argon2id_memory_kib, argon2id->memory_kib, "KiB");
      compare(rule_.kdf.argon2id_passes, argon2id->passes, "passes");
      if (asked.empty()) continue;
      Add("kdf_too_weak",
          fmt::format("{} asks for argon2id with {} at least, and the path {} has {}", RuleName(),
                      fmt::join(asked, " and "), path.id, fmt::join(found, " and ")),
          remedy);
    } else if (const auto& pbkdf2 = std::get<envelope::Pbkdf2Parameters>(*path.kdf);
               pbkdf2.iterations < rule_.kdf.pbkdf2_iterations.value_or(0)) {
      Add("kdf_too_weak",
          fmt::format("{} asks for {} iterations of PBKDF2 at least, and the path {} has {}",
                      RuleName(), *rule_.kdf.pbkdf2_iterations, path.id, pbkdf2.iterations),
          remedy);
    }
  }
}

void RuleEvaluator::Drills() {
  if (!rule_.drill_every_s) return;
  const std::int64_t now = subject_.facts.now;
  const std::string period = FormatDuration(*rule_.drill_every_s);
  bool any_portable = false;
  bool any_fresh = false;
  bool portable_fresh = false;
  for (std::size_t index = 0; index < subject_.key.paths.size(); ++index) {
    const PathFacts& path = subject_.key.paths[index];
    const bool portable = !subject_.opened_by[index].NeedsTpm();
    const bool fresh = IsFresh(path, *rule_.drill_every_s, now);
    any_portable = any_portable || portable;
    any_fresh = any_fresh || fresh;
    portable_fresh = portable_fresh || (portable && fresh);
    const bool named = std::find(rule_.drill_paths.begin(), rule_.drill_paths.end(), path.id) !=
                       rule_.drill_paths.end();
    if (fresh || (!named && !rule_.drill_paths.empty())) continue;
    const std::string remedy =
        fmt::format("prove it: 'keyescrow drill {} --via {}'", subject_.key.name, path.id);
    if (path.failed && (!path.proven || *path.failed >= *path.proven)) {
      Add("path_broken", fmt::format("the path {} failed last time: {}", path.id, path.failure),
          "look at 'keyescrow audit log', then prove it again, or back the key up again");
      continue;
    }
    const bool stale = path.proven.has_value();
    const std::string id = stale ? "path_stale" : "path_unproven";
    const std::string what =
        !stale ? fmt::format("the path {} was never proven", path.id)
        : path.proven_this_revision
            ? fmt::format("the path {} was not proven in the last {}", path.id, period)
            : fmt::format("the path {} was not proven since the key's paths were changed", path.id);
    named ? Add(id, what, remedy) : Warn(id, what, remedy);
  }
  for (const std::string& id : rule_.drill_paths) {
    const bool there = std::any_of(subject_.key.paths.begin(), subject_.key.paths.end(),
                                   [&](const PathFacts& path) { return path.id == id; });
    if (there) continue;
    Add("drill_path_missing",
        fmt::format("{} has the path {} drilled, and the key has none of that id", RuleName(), id),
        fmt::format("back the key up with --path '{}=EXPR'", id));
  }
  if (rule_.portable && any_portable && !portable_fresh) {
    Add("portable_path_unproven",
        fmt::format("no path that needs no tpm was proven in the last {}", period),
        fmt::format("prove one, its token and password at hand: 'keyescrow drill {} --via ID'",
                    subject_.key.name));
  } else if (!rule_.portable && rule_.drill_paths.empty() && !any_fresh) {
    Add("no_path_proven", fmt::format("no path was proven in the last {}", period),
        fmt::format("prove one: 'keyescrow drill {} --via ID'", subject_.key.name));
  }
}

void RuleEvaluator::Rotation() {
  const KeyFacts& key = subject_.key;
  const std::int64_t now = subject_.facts.now;
  const std::string remedy = fmt::format(
      "make a new key: 'keyescrow rotate {}', with --to SINK or --apply CMD where agent.toml does "
      "not declare where it lives",
      key.name);
  // One that was imported was made before its entry.
  const std::int64_t made = std::min(key.made.value_or(key.created), key.created);
  if (rule_.rotate_every_s && now - made > *rule_.rotate_every_s) {
    Add("rotation_due",
        fmt::format("{} asks for a new key every {}, and that of version {} is of {}", RuleName(),
                    FormatDuration(*rule_.rotate_every_s), key.version, Day(made)),
        remedy);
  }
  if (!rule_.rotate_after_restore_s || !key.restored) return;
  const std::int64_t due = *key.restored + *rule_.rotate_after_restore_s;
  const std::string what = fmt::format(
      "version {} was released on {}, and {} asks for a new one {} later at most", key.version,
      Day(*key.restored), RuleName(), FormatDuration(*rule_.rotate_after_restore_s));
  now > due ? Add("rotate_after_restore", what, remedy)
            : Warn("rotate_after_restore", what, remedy);
}

void RuleEvaluator::EvaluateRelease(const Release& release) {
  if (rule_.reason_required && envelope::IsBlankText(release.reason)) {
    Add("reason_missing", fmt::format("{} asks for a reason", RuleName()),
        "say why with --reason TEXT: it stands in the log");
  }
  if (rule_.ticket.empty() || TicketMatches(rule_.ticket, release.ticket)) return;
  Add("ticket_missing",
      release.ticket.empty()
          ? fmt::format("{} asks for a ticket of the form {}", RuleName(), rule_.ticket)
          : fmt::format("{} asks for a ticket of the form {}, which \"{}\" is not", RuleName(),
                        rule_.ticket, release.ticket),
      "name it with --ticket TEXT");
}

}  // namespace keyescrow::agent::policy
