// Recoverability: from the recovery paths alone, which losses make a key unrecoverable and which
// thefts open it. Pure and exact; nothing is estimated.
//
// What is counted, and what is not:
// - A factor is a password, a token (an officer's too), a TPM or a recovery key. A host stands for
//   its TPM and an officer for their token, so `n` losses of factors, hosts and officers are `n`
//   losses of factors. A lost host takes more with it (the key in use, and a store that is there
//   alone): the envelope itself is taken to be kept, and to be known to a thief.
// - A stolen token is stolen with its PIN, a stolen TPM with a way to use it (a live host has both
//   the TPM and the right PCRs). No lockout counts for anything, neither a TPM's nor a token's: a
//   thief has years, and a TPM whose lockout password is empty has no lockout at all.
// - A password is one factor however many paths it stands in, because one password usually serves
//   them all: one loss, one theft. Nobody guesses it (the policy's length and the KDF see to that),
//   so a path of a password alone is opened by one theft, not by none.
// - Names are what people lose: two records under one name, or two names for one public key (one
//   storage key of a TPM), are one factor. Every such merger errs on the side of caution, for
//   losses and thefts alike.
// - A recovery key whose own factors are known (a header has them) counts as those. Itself it can
// be
//   asked for (`recovery-key:NAME` lost or stolen) and is in none of the minimal sets: its
//   private half lies in every envelope, under those factors. Where they are not known, it is one
//   factor.
#pragma once

#include <bit>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxAnalysedFactors = 16;

// FactorSet: bit i is factor i of PathModel::factors(). Bits from 16 on are recovery keys whose own
// factors are known; they occur in Find, never in a minimal set.
using FactorSet = std::uint32_t;

// Atom: what a person can say is lost or stolen.
enum class AtomKind : std::uint8_t { kPassword, kToken, kOfficer, kTpm, kHost, kRecoveryKey };
struct Atom {
  AtomKind kind = AtomKind::kPassword;
  std::string name;  // "" for the password
  bool operator==(const Atom&) const = default;
};

// ParseAtom reads `password`, `token:N`, `officer:N`, `tpm:HOST`, `host:HOST`, `recovery-key:N`.
// Errors: kInvalidPath with the nearest word that is known.
Result<Atom> ParseAtom(std::string_view text);
std::string FormatAtom(const Atom& atom);

// ExpressionContext: what an expression leaves open.
struct ExpressionContext {
  std::string host;  // whose TPM `tpm` means; "": a TPM of its own, which no host names
  // The recovery keys' own paths, by name. One that is missing counts as one factor.
  std::map<std::string, PathExpression, std::less<>> recovery_keys;
};

// PathModel: a key's paths over its factors, as bits. Cheap to make and to ask.
class PathModel {
 public:
  // Of: 1–16 paths. Errors: kUnsupportedHere above 16 factors, kInvalidPath without a path.
  static Result<PathModel> Of(std::span<const PathRecord> paths);
  static Result<PathModel> Of(std::span<const PathExpression> paths,
                              const ExpressionContext& context = {});

  // factors returns their names, as in path expressions: tokens, then the password, TPMs, recovery
  // keys, each kind by name. Of a factor with several names the first stands here.
  const std::vector<std::string>& factors() const { return factors_; }
  std::size_t num_paths() const { return rules_.size(); }

  // Find returns what `atom` stands for; 0: it means nothing to this key. An officer is their token
  // wherever it stands, whether or not they hold a share of this key.
  FactorSet Find(const Atom& atom) const;
  // AddAtoms appends every atom that Find knows, "host:db1" and "officer:alice" included; of
  // officers those who hold a share of this key.
  void AddAtoms(std::vector<std::string>& atoms) const;

  // PathUses returns the factors that stand in one path, shares' members included.
  FactorSet PathUses(std::size_t path) const;
  // Threshold returns how many members of PathShares the path needs; 0 without shares.
  unsigned Threshold(std::size_t path) const { return rules_[path].threshold; }
  FactorSet PathShares(std::size_t path) const;
  // PathStands: the path can still be gone once `lost` is lost. PathOpens: `stolen` opens it.
  bool PathStands(std::size_t path, FactorSet lost) const { return Stands(rules_[path], lost); }
  bool PathOpens(std::size_t path, FactorSet stolen) const { return Opens(rules_[path], stolen); }

  bool Recoverable(FactorSet lost) const;
  bool Opened(FactorSet stolen) const;

  // Names returns the factors' names of a set, in the order of factors().
  std::vector<std::string> Names(FactorSet set) const;

  // CanonicalText tells two models apart that answer any question differently. For hashing, never
  // read again.
  std::string CanonicalText() const;

  // SameShape: the same paths over factors of other names, so that one analysis serves both.
  bool SameShape(const PathModel& other) const {
    return factors_.size() == other.factors_.size() && rules_ == other.rules_;
  }

 private:
  friend class PathModelBuilder;

  struct Rule {
    FactorSet all = 0;  // every one is needed
    unsigned threshold = 0;
    unsigned num_members = 0;
    // Members of the shares. A factor that holds two shares (see above) is in two of these.
    std::vector<FactorSet> members;
    FactorSet recovery_key = 0;  // one bit from 16 on, or 0
    bool operator==(const Rule&) const = default;
  };
  struct Word {
    Atom atom;
    FactorSet set = 0;
  };

  static unsigned Count(const Rule& rule, FactorSet set) {
    unsigned count = 0;
    for (const FactorSet members : rule.members) {
      count += static_cast<unsigned>(std::popcount(members & set));
    }
    return count;
  }
  static bool Stands(const Rule& rule, FactorSet lost) {
    return ((rule.all | rule.recovery_key) & lost) == 0 &&
           rule.num_members - Count(rule, lost) >= rule.threshold;
  }
  static bool Opens(const Rule& rule, FactorSet stolen) {
    return (rule.recovery_key & stolen) != 0 ||
           ((rule.all & ~stolen) == 0 && Count(rule, stolen) >= rule.threshold);
  }

  std::vector<std::string> factors_;
  std::vector<Rule> rules_;
  std::vector<Word> words_;
};

// Recoverability: all minimal sets of one model. Making it takes at most 2^16 evaluations, with
// the 3 to 6 factors that keys have a microsecond or so.
class Recoverability {
 public:
  explicit Recoverability(PathModel model);
  // Of is PathModel::Of and the analysis in one. Errors: as there.
  static Result<Recoverability> Of(std::span<const PathRecord> paths);
  static Result<Recoverability> Of(std::span<const PathExpression> paths,
                                   const ExpressionContext& context = {});

  const PathModel& model() const { return model_; }

  // minimal_losses: every set of factors whose loss makes the key unrecoverable while that of any
  // part of it does not (minimal cut sets). minimal_thefts: every set that opens the key while no
  // part of it does. Neither is empty. Fewer factors first, then by the factors' order.
  const std::vector<FactorSet>& minimal_losses() const { return minimal_losses_; }
  const std::vector<FactorSet>& minimal_thefts() const { return minimal_thefts_; }

  // survives: the largest n such that the loss of any n factors leaves the key recoverable.
  // withstands: the largest n such that no theft of n factors opens it.
  std::size_t survives() const { return Size(minimal_losses_.front()) - 1; }
  std::size_t withstands() const { return Size(minimal_thefts_.front()) - 1; }
  bool Survives(std::size_t num_losses) const { return num_losses <= survives(); }
  bool Withstands(std::size_t num_thefts) const { return num_thefts <= withstands(); }

  // LossesLeft: how many more losses, after `lost`, make the key unrecoverable; 0: it is.
  // TheftsLeft: how many more thefts, after `stolen`, open it; 0: it is open.
  std::size_t LossesLeft(FactorSet lost) const;
  std::size_t TheftsLeft(FactorSet stolen) const;

 private:
  static std::size_t Size(FactorSet set) { return static_cast<std::size_t>(std::popcount(set)); }

  PathModel model_;
  std::vector<FactorSet> minimal_losses_;
  std::vector<FactorSet> minimal_thefts_;
};

}  // namespace keyescrow::envelope
