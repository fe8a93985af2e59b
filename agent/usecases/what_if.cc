#include "agent/usecases/what_if.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <map>
#include <set>
#include <utility>

#include "agent/usecases/envelope_source.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/summary_paths.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/nearest_word.h"

namespace keyescrow::agent {
namespace {

using envelope::Atom;
using envelope::AtomKind;
using envelope::FactorSet;

Result<std::vector<Atom>> ParseAtoms(const std::vector<std::string>& texts) {
  std::vector<Atom> atoms;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(Atom atom, envelope::ParseAtom(text));
    atoms.push_back(std::move(atom));
  }
  return atoms;
}

bool NamesHost(const std::vector<Atom>& atoms, const std::string& host) {
  return std::find(atoms.begin(), atoms.end(), Atom{AtomKind::kHost, host}) != atoms.end();
}

// Analyses: one shape of paths is analysed once, whatever its factors are called.
class Analyses {
 public:
  // Of returns the analysis of a model that has the same shape; sets mean the same in both.
  const envelope::Recoverability& Of(const envelope::PathModel& model) {
    auto& same_size = by_size_[{model.factors().size(), model.num_paths()}];
    for (const auto& known : same_size) {
      if (known.model().SameShape(model)) return known;
    }
    return same_size.emplace_back(model);
  }

 private:
  // A list keeps what Of returned in its place.
  std::map<std::pair<std::size_t, std::size_t>, std::list<envelope::Recoverability>> by_size_;
};

// TokenNames: under which names one public key stands, over all keys.
class TokenNames {
 public:
  void Learn(const envelope::Header& header) {
    for (const envelope::PathRecord& path : header.paths) {
      for (const envelope::FactorRecord& factor : path.factors) {
        if (const auto token = IdentityOf(factor)) Add(*token->token, *token->spki);
        const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
        if (shares == nullptr) continue;
        for (const envelope::ShareMember& member : shares->members) {
          std::visit([&](const auto& record) { Add(member.name, record.spki); }, member.factor);
        }
      }
    }
  }

  // AddOthers adds the other names of the tokens and officers that the atoms name.
  void AddOthers(std::vector<Atom>& atoms) const {
    std::set<std::string> names;
    for (const Atom& atom : atoms) {
      if (atom.kind != AtomKind::kToken && atom.kind != AtomKind::kOfficer) continue;
      for (const auto& [spki, known] : names_) {
        if (known.contains(atom.name)) names.insert(known.begin(), known.end());
      }
    }
    for (const std::string& name : names) atoms.push_back({AtomKind::kToken, name});
  }

 private:
  void Add(const std::string& name, const Bytes& spki) {
    if (!spki.empty()) names_[spki].insert(name);
  }
  std::map<Bytes, std::set<std::string>> names_;
};

// Evaluation: the atoms, which of them some key knows, and the keys so far.
class Evaluation {
 public:
  Evaluation(std::vector<Atom> lost, std::vector<Atom> stolen)
      : lost_(std::move(lost)), stolen_(std::move(stolen)) {}

  void Add(const envelope::Header& header) {
    rows_.push_back({header.key_name, header.key_version, shapes_.size()});
    Shape& shape = shapes_.emplace_back();
    shape.key.host = header.host;
    for (const envelope::PathRecord& path : header.paths) shape.path_ids.push_back(path.id);
    words_.insert("host:" + header.host);
    auto model = envelope::PathModel::Of(header.paths);
    if (!model) {
      shape.key.not_analysed = model.error().message();
      return;
    }
    names_.Learn(header);
    std::vector<std::string> words;
    model->AddAtoms(words);
    words_.insert(words.begin(), words.end());
    shape.model = std::move(*model);
  }

  // AddAlike adds a version that is under the same paths as the `index`-th.
  void AddAlike(std::size_t index, std::string_view name, std::uint32_t version) {
    rows_.push_back({std::string(name), version, rows_[index].shape});
  }
  std::size_t size() const { return rows_.size(); }
  bool empty() const { return rows_.empty(); }

  // CheckKnown refuses an atom that no key knows: a slip of the pen would look like safety.
  Status CheckKnown(const std::string& where) const {
    for (const auto* atoms : {&lost_, &stolen_}) {
      for (const Atom& atom : *atoms) {
        const std::string text = envelope::FormatAtom(atom);
        if (words_.contains(text)) continue;
        // An officer is their token, also where they hold no share.
        if (atom.kind == AtomKind::kOfficer &&
            words_.contains(envelope::FormatAtom({AtomKind::kToken, atom.name}))) {
          continue;
        }
        const std::vector<std::string_view> words(words_.begin(), words_.end());
        return Error(
            ErrorCode::kNotFound, Action::kFixInput,
            "no key " + where + " knows '" + text + "'" + DidYouMean(text, words) + NotAnalysed(),
            "'keyescrow list' shows every key with its paths");
      }
    }
    return Ok();
  }

  // NotAnalysed tells, as a sentence's end, of keys whose factors are too many to be known here.
  std::string NotAnalysed() const {
    const auto num = std::ranges::count_if(
        rows_, [&](const auto& row) { return !shapes_[row.shape].key.not_analysed.empty(); });
    if (num == 0) return "";
    return fmt::format("; {} {} not analysed, and may: too many factors", num,
                       num == 1 ? "version was" : "versions were");
  }

  // Evaluate tells of all that was added, for the store or pack of `own_host`.
  WhatIfReport Evaluate(const std::string& own_host) {
    WhatIfReport report;
    report.store_host = own_host;
    report.store_lost = NamesHost(lost_, own_host);
    names_.AddOthers(lost_);
    names_.AddOthers(stolen_);
    for (Shape& shape : shapes_) EvaluateShape(shape);
    for (Row& row : rows_) {
      WhatIfKey& key = report.keys.emplace_back(shapes_[row.shape].key);
      key.name = std::move(row.name);
      key.version = row.version;
      if (NamesHost(stolen_, key.host)) ++report.num_in_use_on_stolen_host;
    }
    return report;
  }

 private:
  // Shape: the paths that one or more versions are under.
  struct Shape {
    WhatIfKey key;  // without a name
    std::vector<std::string> path_ids;
    std::optional<envelope::PathModel> model;  // none: too many factors
  };
  struct Row {
    std::string name;
    std::uint32_t version = 0;
    std::size_t shape = 0;
  };

  void EvaluateShape(Shape& shape) {
    if (!shape.model) return;
    const envelope::PathModel& model = *shape.model;
    const FactorSet lost = SetOf(model, lost_);
    const FactorSet stolen = SetOf(model, stolen_);
    WhatIfKey& key = shape.key;
    key.concerned = (lost | stolen) != 0;
    for (std::size_t path = 0; path < shape.path_ids.size(); ++path) {
      if (model.PathStands(path, lost)) key.paths_left.push_back(shape.path_ids[path]);
      if (model.PathOpens(path, stolen)) key.paths_opened.push_back(shape.path_ids[path]);
    }
    key.lost = key.paths_left.empty();
    key.opened = !key.paths_opened.empty();
    const envelope::Recoverability& analysis = analyses_.Of(model);
    key.losses_left = analysis.LossesLeft(lost);
    key.thefts_left = analysis.TheftsLeft(stolen);
  }

  static FactorSet SetOf(const envelope::PathModel& model, const std::vector<Atom>& atoms) {
    FactorSet set = 0;
    for (const Atom& atom : atoms) set |= model.Find(atom);
    return set;
  }

  std::vector<Atom> lost_;
  std::vector<Atom> stolen_;
  std::set<std::string, std::less<>> words_;
  TokenNames names_;
  std::vector<Shape> shapes_;
  std::vector<Row> rows_;
  Analyses analyses_;
};

// AddState evaluates what the store has.
Status AddState(Agent& agent, const std::string& key_name, Evaluation& evaluation) {
  // Nothing is opened: who signed an envelope changes nothing about what it would take.
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  std::map<Bytes32, std::size_t> seen;  // path set → a key that is under it
  const auto add = [&](const store::PathSetRow& row) -> Status {
    if (row.path_set) {
      const auto [known, is_new] = seen.emplace(*row.path_set, evaluation.size());
      if (!is_new) {
        evaluation.AddAlike(known->second, row.key_name, row.key_version);
        return Ok();
      }
    }
    ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                     agent.store().FindEnvelope(row.key_name, row.key_version));
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) return std::move(sealed).error().WithContext(record.key_name);
    evaluation.Add(sealed->header());
    return Ok();
  };
  const auto add_all = [&]() -> Status {
    Status added = Ok();
    RETURN_IF_ERROR(agent.store().PathSets(key_name, [&](const store::PathSetRow& row) {
      added = add(row);
      return static_cast<bool>(added);
    }));
    return added;
  };
  return agent.store().ReadTogether(add_all);
}

// NumForeign returns how many escrows of other tools a pack lists.
Result<std::size_t> NumForeign(const report::TarReader& pack) {
  ASSIGN_OR_RETURN(const std::string text, pack.Read("inventory.json"));
  const auto json = ParsePackJson(text);
  PackFields inventory(json);
  const std::size_t number = inventory.List("foreign").size();
  if (!inventory.good()) return MisshapenPart("inventory.json");
  return number;
}

// AddPack evaluates the summaries of a pack, and returns the host that it is of.
Result<std::string> AddPack(const report::TarReader& pack, const std::string& key_name,
                            Evaluation& evaluation) {
  ASSIGN_OR_RETURN(const std::string document, pack.Read("keys/agent-key.json"));
  ASSIGN_OR_RETURN(const TrustDocument keys, ParseAgentKeyDocument(document));
  std::map<std::pair<std::string, std::uint32_t>, envelope::Header> newest;
  RETURN_IF_ERROR(ForSummaries(pack, [&](std::string_view line) -> Status {
    ASSIGN_OR_RETURN(envelope::Header header, SummaryHeader(line));
    if (!key_name.empty() && header.key_name != key_name) return Ok();
    auto& kept = newest[{header.key_name, header.key_version}];
    if (kept.paths.empty() || kept.revision < header.revision) kept = std::move(header);
    return Ok();
  }));
  for (const auto& [version, header] : newest) evaluation.Add(header);
  return keys.host;
}

}  // namespace

Result<WhatIfReport> WhatIf(Agent* agent, const WhatIfRequest& request) {
  ASSIGN_OR_RETURN(std::vector<Atom> lost, ParseAtoms(request.lost));
  ASSIGN_OR_RETURN(std::vector<Atom> stolen, ParseAtoms(request.stolen));
  Evaluation evaluation(std::move(lost), std::move(stolen));
  std::string host;
  std::size_t num_foreign = 0;
  if (request.pack) {
    ASSIGN_OR_RETURN(const report::TarReader pack, OpenVerifiedPack(agent, *request.pack));
    ASSIGN_OR_RETURN(num_foreign, NumForeign(pack));
    ASSIGN_OR_RETURN(host, AddPack(pack, request.key_name, evaluation));
  } else {
    RETURN_IF_ERROR(AddState(*agent, request.key_name, evaluation));
    ASSIGN_OR_RETURN(const auto foreign, agent->store().ForeignEscrows());
    num_foreign = foreign.size();
    host = agent->identity().host;
  }
  const std::string where = request.pack ? "in the pack" : "here";
  if (evaluation.empty()) {
    if (!request.key_name.empty()) {
      return Error(ErrorCode::kKeyNotFound, Action::kFixInput,
                   "no key named " + request.key_name + " is escrowed " + where,
                   request.pack ? "leave the name out: all that the pack has is then told"
                                : "'keyescrow list' shows those that are");
    }
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is escrowed " + where,
                 "escrow one with 'keyescrow backup NAME --from SOURCE --path EXPR'");
  }
  RETURN_IF_ERROR(evaluation.CheckKnown(where));
  WhatIfReport report = evaluation.Evaluate(host);
  if (request.key_name.empty()) report.num_foreign = num_foreign;
  return report;
}

}  // namespace keyescrow::agent
