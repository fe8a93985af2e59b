#include "envelope/recoverability.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "envelope/base/nearest_word.h"

namespace keyescrow::envelope {
namespace {

constexpr unsigned kFirstRecoveryKeyBit = kMaxAnalysedFactors;

struct AtomWord {
  std::string_view word;
  AtomKind kind;
};
constexpr AtomWord kAtomWords[] = {
    {"password", AtomKind::kPassword}, {"token", AtomKind::kToken},
    {"officer", AtomKind::kOfficer},   {"tpm", AtomKind::kTpm},
    {"host", AtomKind::kHost},         {"recovery-key", AtomKind::kRecoveryKey},
};

std::string_view WordOf(AtomKind kind) {
  for (const AtomWord& entry : kAtomWords) {
    if (entry.kind == kind) return entry.word;
  }
  return "";
}

Error AtomError(std::string message) {
  return Error(ErrorCode::kInvalidPath, Action::kFixInput, std::move(message),
               "name password, token:NAME, tpm:HOST, host:HOST, recovery-key:NAME or officer:NAME");
}

// SmallerSet: fewer factors first, then the set that has the earlier factor.
bool SmallerSet(FactorSet left, FactorSet right) {
  const int left_size = std::popcount(left);
  const int right_size = std::popcount(right);
  if (left_size != right_size) return left_size < right_size;
  const FactorSet different = left ^ right;
  return (different & (~different + 1) & left) != 0;
}

// MinimalSets returns the minimal sets for which `holds`, a monotone function of n factors, is
// true.
template <typename Function>
std::vector<FactorSet> MinimalSets(std::size_t num_factors, Function holds) {
  const FactorSet end = FactorSet{1} << num_factors;
  std::vector<bool> table(end);
  std::vector<FactorSet> minimal;
  for (FactorSet set = 0; set < end; ++set) {
    bool part_holds = false;
    for (FactorSet rest = set; rest != 0 && !part_holds; rest &= rest - 1) {
      part_holds = table[set ^ (rest & (~rest + 1))];
    }
    table[set] = part_holds || holds(set);
    if (table[set] && !part_holds) minimal.push_back(set);
  }
  std::sort(minimal.begin(), minimal.end(), SmallerSet);
  return minimal;
}

}  // namespace

Result<Atom> ParseAtom(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view word = text.substr(0, colon);
  const auto* found = std::find_if(std::begin(kAtomWords), std::end(kAtomWords),
                                   [&](const AtomWord& entry) { return entry.word == word; });
  if (found == std::end(kAtomWords)) {
    std::vector<std::string_view> words;
    for (const AtomWord& entry : kAtomWords) words.push_back(entry.word);
    return AtomError(fmt::format("'{}' is nothing that can be lost or stolen{}", word.substr(0, 64),
                                 DidYouMean(word, words)));
  }
  if (found->kind == AtomKind::kPassword) {
    if (colon != std::string_view::npos) return AtomError("a password has no name");
    return Atom{};
  }
  if (colon == std::string_view::npos || !IsName(text.substr(colon + 1))) {
    return AtomError(
        fmt::format("'{}' needs a name of 1 to 64 letters, digits, '.', '_' and '-'", word));
  }
  return Atom{found->kind, std::string(text.substr(colon + 1))};
}

std::string FormatAtom(const Atom& atom) {
  std::string text(WordOf(atom.kind));
  if (!atom.name.empty()) text += ":" + atom.name;
  return text;
}

// PathModelBuilder: first every factor as it is met (a node), then the nodes that are one factor
// joined, then the joined factors numbered and the paths written as bits.
class PathModelBuilder {
 public:
  void Add(const PathRecord& path) {
    Draft& draft = drafts_.emplace_back();
    for (const FactorRecord& factor : path.factors) Add(draft, factor);
    if (path.recovery_key) {
      const RecoveryKeyRecord& record = *path.recovery_key;
      ByteView identity;
      if (record.public_key) identity = AsView(record.public_key->x());
      draft.recovery_key = Node(AtomKind::kRecoveryKey, record.name, identity);
    }
  }

  Status Add(const PathExpression& path, const ExpressionContext& context) {
    Draft& draft = drafts_.emplace_back();
    for (const FactorTerm& term : path.factors) {
      if (term.kind != FactorKind::kRecoveryKey) {
        Add(draft, term, context);
        continue;
      }
      const std::size_t node = Node(AtomKind::kRecoveryKey, term.name, {});
      const auto known = context.recovery_keys.find(term.name);
      if (known == context.recovery_keys.end()) {
        draft.all.push_back(node);
        continue;
      }
      draft.recovery_key = node;
      for (const FactorTerm& own : known->second.factors) {
        if (own.kind == FactorKind::kRecoveryKey) {
          return Error(ErrorCode::kInvalidPath, Action::kFixInput,
                       "recovery key " + term.name + " has a path with a recovery key",
                       "protect a recovery key by tokens, a password or a tpm");
        }
        Add(draft, own, context);
      }
    }
    return Ok();
  }

  Result<PathModel> Build() {
    if (drafts_.empty()) {
      return Error(ErrorCode::kInvalidPath, Action::kFixInput, "there is no path",
                   "a key has 1 to 16 recovery paths");
    }
    Join();
    RETURN_IF_ERROR(Number());
    PathModel model;
    for (const Draft& draft : drafts_) {
      PathModel::Rule& rule = model.rules_.emplace_back();
      for (const std::size_t node : draft.all) rule.all |= SetOf(node);
      for (const std::size_t node : draft.members) AddMember(rule, SetOf(node));
      rule.threshold = draft.threshold;
      rule.num_members = static_cast<unsigned>(draft.members.size());
      if (draft.recovery_key) rule.recovery_key = SetOf(*draft.recovery_key);
    }
    model.factors_ = std::move(names_);
    for (std::size_t node = 0; node < nodes_.size(); ++node) AddWords(model, node);
    return model;
  }

 private:
  struct NodeFacts {
    AtomKind kind = AtomKind::kPassword;
    std::string_view name;
    ByteView identity;  // of the public key, or empty: not known
    bool officer = false;
    std::size_t leader = 0;
    unsigned bit = 0;  // of leaders
  };
  struct Draft {
    std::vector<std::size_t> all;
    std::vector<std::size_t> members;
    unsigned threshold = 0;
    std::optional<std::size_t> recovery_key;  // its own factors are in `all` and `members`
  };

  static ByteView AsView(const auto& bytes) { return ByteView(bytes.data(), bytes.size()); }

  // Node returns the node of these facts; all views live as long as the paths.
  std::size_t Node(AtomKind kind, std::string_view name, ByteView identity) {
    for (std::size_t index = 0; index < nodes_.size(); ++index) {
      const NodeFacts& node = nodes_[index];
      if (node.kind == kind && node.name == name &&
          std::equal(node.identity.begin(), node.identity.end(), identity.begin(),
                     identity.end())) {
        return index;
      }
    }
    nodes_.push_back({kind, name, identity, false, nodes_.size(), 0});
    return nodes_.size() - 1;
  }

  std::size_t TokenNode(const auto& record, std::string_view name) {
    return Node(AtomKind::kToken, name, AsView(record.spki));
  }

  // MemberNode: a share's member has a name, and so has the token that was registered for them; the
  // public key joins the two.
  std::size_t MemberNode(const ShareMember& member) {
    return std::visit(
        [&](const auto& record) {
          TokenNode(record, record.token);
          const std::size_t node = TokenNode(record, member.name);
          nodes_[node].officer = true;
          return node;
        },
        member.factor);
  }

  void Add(Draft& draft, const FactorRecord& factor) {
    if (const auto* shares = std::get_if<SharesRecord>(&factor)) {
      draft.threshold = shares->threshold;
      for (const ShareMember& member : shares->members) {
        draft.members.push_back(MemberNode(member));
      }
    } else if (const auto* tpm = std::get_if<Tpm2Record>(&factor)) {
      draft.all.push_back(Node(AtomKind::kTpm, tpm->host, AsView(tpm->parent_public)));
    } else if (const auto* rsa = std::get_if<Pkcs11RsaRecord>(&factor)) {
      draft.all.push_back(TokenNode(*rsa, rsa->token));
    } else if (const auto* ecdh = std::get_if<Pkcs11EcdhRecord>(&factor)) {
      draft.all.push_back(TokenNode(*ecdh, ecdh->token));
    } else {
      draft.all.push_back(Node(AtomKind::kPassword, "", {}));
    }
  }

  void Add(Draft& draft, const FactorTerm& term, const ExpressionContext& context) {
    switch (term.kind) {
      case FactorKind::kToken: draft.all.push_back(Node(AtomKind::kToken, term.name, {})); break;
      case FactorKind::kShares:
        draft.threshold = term.threshold;
        for (const std::string& member : term.members) {
          const std::size_t node = Node(AtomKind::kToken, member, {});
          nodes_[node].officer = true;
          draft.members.push_back(node);
        }
        break;
      case FactorKind::kPassword: draft.all.push_back(Node(AtomKind::kPassword, "", {})); break;
      case FactorKind::kTpm:
        draft.all.push_back(Node(AtomKind::kTpm, term.name.empty() ? context.host : term.name, {}));
        break;
      case FactorKind::kRecoveryKey: break;  // taken apart by the caller
    }
  }

  // Join gives all nodes that are one factor the same leader: the first of them.
  void Join() {
    for (std::size_t index = 1; index < nodes_.size(); ++index) {
      for (std::size_t before = 0; before < index; ++before) {
        if (AreOne(nodes_[before], nodes_[index])) Merge(nodes_[before].leader, index);
      }
    }
  }

  static bool AreOne(const NodeFacts& left, const NodeFacts& right) {
    if (left.kind != right.kind) return false;
    if (left.name == right.name) return true;
    return !left.identity.empty() && std::equal(left.identity.begin(), left.identity.end(),
                                                right.identity.begin(), right.identity.end());
  }

  void Merge(std::size_t leader, std::size_t node) {
    const std::size_t other = nodes_[node].leader;
    const auto [first, second] = std::minmax(leader, other);
    for (NodeFacts& facts : nodes_) {
      if (facts.leader == second) facts.leader = first;
    }
  }

  // Number gives every leader its bit: factors in their order from 0, recovery keys whose factors
  // are known from 16.
  Status Number() {
    std::vector<bool> derived(nodes_.size());
    for (const Draft& draft : drafts_) {
      if (draft.recovery_key) derived[nodes_[*draft.recovery_key].leader] = true;
    }
    std::vector<std::size_t> order(nodes_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
      return Rank(nodes_[left]) < Rank(nodes_[right]);
    });
    std::vector<bool> numbered(nodes_.size());
    unsigned next_recovery_key = kFirstRecoveryKeyBit;
    for (const std::size_t index : order) {
      const std::size_t leader = nodes_[index].leader;
      if (numbered[leader]) continue;
      numbered[leader] = true;
      if (derived[leader]) {
        nodes_[leader].bit = next_recovery_key++;
        continue;
      }
      nodes_[leader].bit = static_cast<unsigned>(names_.size());
      names_.push_back(FormatAtom({nodes_[index].kind, std::string(nodes_[index].name)}));
    }
    if (names_.size() > kMaxAnalysedFactors) {
      return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                   fmt::format("the paths have {} different factors; what a key survives is "
                               "computed for up to {}",
                               names_.size(), kMaxAnalysedFactors),
                   "give the key fewer tokens or officers, or look at its paths yourself");
    }
    return Ok();
  }

  static std::tuple<int, std::string_view> Rank(const NodeFacts& node) {
    switch (node.kind) {
      case AtomKind::kPassword: return {1, node.name};
      case AtomKind::kTpm: return {2, node.name};
      case AtomKind::kRecoveryKey: return {3, node.name};
      default: return {0, node.name};
    }
  }

  FactorSet SetOf(std::size_t node) const {
    return FactorSet{1} << nodes_[nodes_[node].leader].bit;
  }

  static void AddMember(PathModel::Rule& rule, FactorSet member) {
    for (FactorSet& members : rule.members) {
      if ((members & member) != 0) continue;
      members |= member;
      return;
    }
    rule.members.push_back(member);
  }

  void AddWords(PathModel& model, std::size_t node) const {
    const NodeFacts& facts = nodes_[node];
    const auto add = [&](AtomKind kind) {
      Atom atom{kind, std::string(facts.name)};
      const bool known =
          std::any_of(model.words_.begin(), model.words_.end(),
                      [&](const PathModel::Word& word) { return word.atom == atom; });
      if (!known) model.words_.push_back({std::move(atom), SetOf(node)});
    };
    if (facts.kind == AtomKind::kTpm && facts.name.empty()) return;
    add(facts.kind);
    if (facts.officer) add(AtomKind::kOfficer);
    if (facts.kind == AtomKind::kTpm) add(AtomKind::kHost);
  }

  std::vector<NodeFacts> nodes_;
  std::vector<Draft> drafts_;
  std::vector<std::string> names_;
};

Result<PathModel> PathModel::Of(std::span<const PathRecord> paths) {
  PathModelBuilder builder;
  for (const PathRecord& path : paths) builder.Add(path);
  return builder.Build();
}

Result<PathModel> PathModel::Of(std::span<const PathExpression> paths,
                                const ExpressionContext& context) {
  PathModelBuilder builder;
  for (const PathExpression& path : paths) RETURN_IF_ERROR(builder.Add(path, context));
  return builder.Build();
}

FactorSet PathModel::Find(const Atom& atom) const {
  for (const Word& word : words_) {
    if (word.atom == atom) return word.set;
  }
  // Where they hold no share, an officer still has their token.
  return atom.kind == AtomKind::kOfficer ? Find({AtomKind::kToken, atom.name}) : 0;
}

void PathModel::AddAtoms(std::vector<std::string>& atoms) const {
  for (const Word& word : words_) atoms.push_back(FormatAtom(word.atom));
}

FactorSet PathModel::PathShares(std::size_t path) const {
  FactorSet shares = 0;
  for (const FactorSet members : rules_[path].members) shares |= members;
  return shares;
}

FactorSet PathModel::PathUses(std::size_t path) const {
  return rules_[path].all | PathShares(path);
}

bool PathModel::Recoverable(FactorSet lost) const {
  return std::any_of(rules_.begin(), rules_.end(),
                     [lost](const Rule& rule) { return Stands(rule, lost); });
}

bool PathModel::Opened(FactorSet stolen) const {
  return std::any_of(rules_.begin(), rules_.end(),
                     [stolen](const Rule& rule) { return Opens(rule, stolen); });
}

std::string PathModel::CanonicalText() const {
  std::string text = fmt::format("{} {} {}\n", factors_.size(), rules_.size(), words_.size());
  // Sizes stand before names, so that no name can look like the next one's beginning.
  for (const std::string& name : factors_) text += fmt::format("{} {}\n", name.size(), name);
  for (const Rule& rule : rules_) {
    text +=
        fmt::format("{} {} {} {}", rule.all, rule.threshold, rule.num_members, rule.recovery_key);
    for (const FactorSet members : rule.members) text += fmt::format(" {}", members);
    text += '\n';
  }
  for (const Word& word : words_) {
    const std::string atom = FormatAtom(word.atom);
    text += fmt::format("{} {} {}\n", word.set, atom.size(), atom);
  }
  return text;
}

std::vector<std::string> PathModel::Names(FactorSet set) const {
  std::vector<std::string> names;
  for (std::size_t index = 0; index < factors_.size(); ++index) {
    if ((set >> index & 1U) != 0) names.push_back(factors_[index]);
  }
  return names;
}

Recoverability::Recoverability(PathModel model) : model_(std::move(model)) {
  const std::size_t num_factors = model_.factors().size();
  minimal_losses_ =
      MinimalSets(num_factors, [this](FactorSet lost) { return !model_.Recoverable(lost); });
  minimal_thefts_ =
      MinimalSets(num_factors, [this](FactorSet stolen) { return model_.Opened(stolen); });
}

Result<Recoverability> Recoverability::Of(std::span<const PathRecord> paths) {
  ASSIGN_OR_RETURN(PathModel model, PathModel::Of(paths));
  return Recoverability(std::move(model));
}

Result<Recoverability> Recoverability::Of(std::span<const PathExpression> paths,
                                          const ExpressionContext& context) {
  ASSIGN_OR_RETURN(PathModel model, PathModel::Of(paths, context));
  return Recoverability(std::move(model));
}

std::size_t Recoverability::LossesLeft(FactorSet lost) const {
  if (!model_.Recoverable(lost)) return 0;
  std::size_t left = model_.factors().size();
  if (lost >> kFirstRecoveryKeyBit == 0) {
    for (const FactorSet losses : minimal_losses_) left = std::min(left, Size(losses & ~lost));
    return left;
  }
  // A recovery key is lost as such: that takes a path away and is in none of the minimal sets.
  for (FactorSet more = 0; more < FactorSet{1} << model_.factors().size(); ++more) {
    if (!model_.Recoverable(lost | more)) left = std::min(left, Size(more & ~lost));
  }
  return left;
}

std::size_t Recoverability::TheftsLeft(FactorSet stolen) const {
  if (model_.Opened(stolen)) return 0;
  std::size_t left = model_.factors().size();
  for (const FactorSet thefts : minimal_thefts_) left = std::min(left, Size(thefts & ~stolen));
  return left;
}

}  // namespace keyescrow::envelope
