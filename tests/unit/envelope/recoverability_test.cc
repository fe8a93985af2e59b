#include "envelope/recoverability.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace keyescrow::envelope {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<PathExpression> Expressions(const std::vector<std::string>& texts) {
  std::vector<PathExpression> expressions;
  for (const std::string& text : texts) {
    auto expression = ParsePathExpression(text);
    EXPECT_TRUE(expression) << text;
    if (expression) expressions.push_back(std::move(*expression));
  }
  return expressions;
}

Recoverability Analyse(const std::vector<std::string>& texts,
                       const ExpressionContext& context = {}) {
  auto analysed = Recoverability::Of(Expressions(texts), context);
  EXPECT_TRUE(analysed) << (analysed ? "" : analysed.error().message());
  return std::move(*analysed);
}

// Sets writes minimal sets as a person reads them.
std::vector<std::string> Sets(const PathModel& model, const std::vector<FactorSet>& sets) {
  std::vector<std::string> texts;
  for (const FactorSet set : sets) {
    texts.push_back(fmt::format("{}", fmt::join(model.Names(set), " + ")));
  }
  return texts;
}
std::vector<std::string> Losses(const Recoverability& analysed) {
  return Sets(analysed.model(), analysed.minimal_losses());
}
std::vector<std::string> Thefts(const Recoverability& analysed) {
  return Sets(analysed.model(), analysed.minimal_thefts());
}

FactorSet Find(const PathModel& model, std::string_view text) {
  auto atom = ParseAtom(text);
  EXPECT_TRUE(atom) << text;
  return atom ? model.Find(*atom) : 0;
}

TEST(Recoverability, OnePathFallsWithAnyFactorAndOpensWithAll) {
  const auto analysed = Analyse({"password & token:ops"});
  EXPECT_THAT(Losses(analysed), ElementsAre("token:ops", "password"));
  EXPECT_THAT(Thefts(analysed), ElementsAre("token:ops + password"));
  EXPECT_EQ(analysed.survives(), 0U);
  EXPECT_EQ(analysed.withstands(), 1U);
  EXPECT_TRUE(analysed.Survives(0));
  EXPECT_FALSE(analysed.Survives(1));
  EXPECT_TRUE(analysed.Withstands(1));
  EXPECT_FALSE(analysed.Withstands(2));
}

TEST(Recoverability, ASharedPasswordIsOneLoss) {
  const auto analysed = Analyse({"password & token:ops", "password & tpm:db1"});
  EXPECT_THAT(Losses(analysed), ElementsAre("password", "token:ops + tpm:db1"));
  EXPECT_THAT(Thefts(analysed), ElementsAre("token:ops + password", "password + tpm:db1"));
  EXPECT_EQ(analysed.survives(), 0U);
}

TEST(Recoverability, TwoPathsWithNothingInCommonSurviveOneLoss) {
  const auto analysed = Analyse({"password & token:ops", "token:safe & tpm:db1"});
  EXPECT_EQ(analysed.survives(), 1U);
  EXPECT_EQ(analysed.withstands(), 1U);
  EXPECT_THAT(Losses(analysed), ElementsAre("token:ops + token:safe", "token:ops + tpm:db1",
                                            "token:safe + password", "password + tpm:db1"));
}

TEST(Recoverability, APasswordAloneIsOneTheft) {
  const auto analysed = Analyse({"password", "token:a & token:b"});
  EXPECT_THAT(Thefts(analysed), ElementsAre("password", "token:a + token:b"));
  EXPECT_TRUE(analysed.Withstands(0));
  EXPECT_FALSE(analysed.Withstands(1));
}

TEST(Recoverability, APathThatContainsAnotherAddsNoTheft) {
  const auto analysed = Analyse({"token:a", "password & token:a"});
  EXPECT_THAT(Thefts(analysed), ElementsAre("token:a"));
  EXPECT_THAT(Losses(analysed), ElementsAre("token:a"));
}

TEST(Recoverability, ThresholdsFallAndOpenWhereTheyShould) {
  const auto analysed = Analyse({"2 of (token:alice, token:bob, token:carol)"});
  EXPECT_THAT(Losses(analysed), ElementsAre("token:alice + token:bob", "token:alice + token:carol",
                                            "token:bob + token:carol"));
  EXPECT_THAT(Thefts(analysed), ElementsAre("token:alice + token:bob", "token:alice + token:carol",
                                            "token:bob + token:carol"));
  const auto all = Analyse({"3 of (token:alice, token:bob, token:carol) & password"});
  EXPECT_THAT(Losses(all), ElementsAre("token:alice", "token:bob", "token:carol", "password"));
  EXPECT_EQ(all.withstands(), 3U);
}

TEST(Recoverability, EightOfSixteenIsExact) {
  std::string text = "8 of (token:t00";
  for (int index = 1; index < 16; ++index) text += fmt::format(", token:t{:02}", index);
  const auto analysed = Analyse({text + ")"});
  EXPECT_EQ(analysed.survives(), 8U);
  EXPECT_EQ(analysed.withstands(), 7U);
  EXPECT_EQ(analysed.minimal_thefts().size(), 12870U);  // C(16, 8)
  EXPECT_EQ(analysed.minimal_losses().size(), 11440U);  // C(16, 9)
}

TEST(Recoverability, RefusesMoreFactorsThanItComputes) {
  std::string text = "password & 8 of (token:t00";
  for (int index = 1; index < 16; ++index) text += fmt::format(", token:t{:02}", index);
  auto refused = Recoverability::Of(Expressions({text + ")"}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnsupportedHere);
  EXPECT_EQ(refused.error().action(), Action::kFixInput);
  EXPECT_THAT(refused.error().message(), HasSubstr("17 different factors"));
  auto none = Recoverability::Of(std::span<const PathExpression>());
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), ErrorCode::kInvalidPath);
}

TEST(Recoverability, AHostIsItsTpmAndAnOfficerTheirToken) {
  const auto analysed = Analyse({"password & tpm", "2 of (token:alice, token:bob) & token:ops"},
                                {.host = "db1", .recovery_keys = {}});
  const PathModel& model = analysed.model();
  EXPECT_THAT(model.factors(),
              ElementsAre("token:alice", "token:bob", "token:ops", "password", "tpm:db1"));
  EXPECT_NE(Find(model, "host:db1"), 0U);
  EXPECT_EQ(Find(model, "host:db1"), Find(model, "tpm:db1"));
  EXPECT_EQ(Find(model, "officer:alice"), Find(model, "token:alice"));
  EXPECT_EQ(Find(model, "officer:ops"), Find(model, "token:ops")) << "ops holds no share";
  EXPECT_NE(Find(model, "officer:ops"), 0U);
  EXPECT_EQ(Find(model, "officer:carol"), 0U);
  EXPECT_EQ(Find(model, "host:db2"), 0U);
  std::vector<std::string> atoms;
  model.AddAtoms(atoms);
  EXPECT_THAT(atoms, testing::UnorderedElementsAre("password", "tpm:db1", "host:db1", "token:alice",
                                                   "officer:alice", "token:bob", "officer:bob",
                                                   "token:ops"));
}

TEST(Recoverability, ARecoveryKeyCountsAsItsOwnFactors) {
  ExpressionContext context;
  context.recovery_keys.emplace("team", Expressions({"2 of (token:a, token:b, token:c)"}).front());
  const auto analysed = Analyse({"recovery-key:team", "password & token:ops"}, context);
  EXPECT_EQ(analysed.withstands(), 1U);
  EXPECT_EQ(analysed.survives(), 2U);
  const PathModel& model = analysed.model();
  EXPECT_THAT(model.factors(),
              ElementsAre("token:a", "token:b", "token:c", "token:ops", "password"));
  // As such it can be named: stolen it opens, lost it takes its path away.
  const FactorSet team = Find(model, "recovery-key:team");
  ASSERT_NE(team, 0U);
  EXPECT_TRUE(model.Opened(team));
  EXPECT_TRUE(model.Recoverable(team));
  EXPECT_FALSE(model.Recoverable(team | Find(model, "password")));
  EXPECT_EQ(analysed.LossesLeft(team), 1U);
  EXPECT_EQ(analysed.LossesLeft(0), 3U);
  EXPECT_EQ(analysed.TheftsLeft(team), 0U);
  EXPECT_EQ(analysed.TheftsLeft(Find(model, "token:a")), 1U);
}

TEST(Recoverability, AnUnknownRecoveryKeyIsOneFactor) {
  const auto analysed = Analyse({"recovery-key:team", "password & token:ops"});
  EXPECT_THAT(Thefts(analysed), ElementsAre("recovery-key:team", "token:ops + password"));
  ExpressionContext nested;
  nested.recovery_keys.emplace("team", Expressions({"recovery-key:other"}).front());
  auto refused = Recoverability::Of(Expressions({"recovery-key:team"}), nested);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidPath);
}

Pkcs11EcdhRecord Token(std::string name, std::uint8_t public_key) {
  Pkcs11EcdhRecord record;
  record.token = std::move(name);
  record.spki = Bytes(91, public_key);
  return record;
}
PathRecord Path(std::vector<FactorRecord> factors) {
  PathRecord path;
  path.factors = std::move(factors);
  return path;
}

TEST(Recoverability, RecordsOfOneKeyOrOneNameAreOneFactor) {
  // x and y are one public key; y and y are one name: all three are one loss.
  const std::vector<PathRecord> paths = {Path({Token("x", 1)}), Path({Token("y", 1)}),
                                         Path({Token("y", 2), PasswordRecord{}})};
  auto analysed = Recoverability::Of(paths);
  ASSERT_TRUE(analysed);
  EXPECT_THAT(Losses(*analysed), ElementsAre("token:x"));
  EXPECT_EQ(Find(analysed->model(), "token:x"), Find(analysed->model(), "token:y"));

  Tpm2Record first;
  first.host = "db1";
  first.parent_public = Bytes(92, 1);
  Tpm2Record renamed = first;
  renamed.host = "db1-new";
  auto tpms = Recoverability::Of(std::vector<PathRecord>{Path({first}), Path({renamed})});
  ASSERT_TRUE(tpms);
  EXPECT_THAT(Losses(*tpms), ElementsAre("tpm:db1"));
  EXPECT_EQ(Find(tpms->model(), "host:db1-new"), Find(tpms->model(), "tpm:db1"));
}

TEST(Recoverability, OneTokenThatHoldsTwoSharesCountsTwice) {
  // Within a path all public keys differ, but another path can say that alice and bob share one.
  SharesRecord shares;
  shares.threshold = 2;
  shares.members = {{1, "alice", {}, Token("alice", 1)}, {2, "bob", {}, Token("bob-card", 2)}};
  auto analysed = Recoverability::Of(
      std::vector<PathRecord>{Path({shares}), Path({Token("alice", 2), Token("z", 3)})});
  ASSERT_TRUE(analysed);
  EXPECT_THAT(analysed->model().factors(), ElementsAre("token:alice", "token:z"));
  EXPECT_THAT(Thefts(*analysed), ElementsAre("token:alice"));
  EXPECT_EQ(Find(analysed->model(), "officer:bob"), Find(analysed->model(), "token:alice"));
  EXPECT_EQ(Find(analysed->model(), "token:bob-card"), Find(analysed->model(), "token:alice"));
  EXPECT_EQ(Find(analysed->model(), "officer:bob-card"), Find(analysed->model(), "token:alice"));
}

TEST(Recoverability, ReadsAtomsAndNamesTheNearestWord) {
  for (const char* text :
       {"password", "token:ops", "tpm:db1", "host:db1", "recovery-key:team", "officer:alice"}) {
    auto atom = ParseAtom(text);
    ASSERT_TRUE(atom) << text;
    EXPECT_EQ(FormatAtom(*atom), text);
  }
  for (const char* text : {"", "tokn:ops", "token", "token:", "token:a b", "password:x", "tpm",
                           "ops", ":", "officer:a/b"}) {
    auto refused = ParseAtom(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidPath) << text;
    EXPECT_EQ(refused.error().action(), Action::kFixInput);
  }
  EXPECT_THAT(ParseAtom("tokn:ops").error().message(), HasSubstr("did you mean 'token'?"));
}

TEST(Recoverability, PathsSayWhatTheyUse) {
  const auto analysed = Analyse({"password & 2 of (token:a, token:b)", "tpm:db1"});
  const PathModel& model = analysed.model();
  EXPECT_THAT(model.Names(model.PathUses(0)), ElementsAre("token:a", "token:b", "password"));
  EXPECT_THAT(model.Names(model.PathShares(0)), ElementsAre("token:a", "token:b"));
  EXPECT_EQ(model.Threshold(0), 2U);
  EXPECT_EQ(model.Threshold(1), 0U);
  EXPECT_FALSE(model.PathStands(0, Find(model, "token:a")));
  EXPECT_TRUE(model.PathStands(1, Find(model, "token:a")));
  EXPECT_TRUE(model.PathOpens(1, Find(model, "host:db1")));
  EXPECT_TRUE(model.SameShape(Analyse({"password & 2 of (token:x, token:y)", "tpm:z"}).model()));
  EXPECT_FALSE(
      model.SameShape(Analyse({"password & 2 of (token:x, token:y)", "password"}).model()));
}

// ---- Against another way of computing the same: names instead of bits, and minimal cut sets as
// the minimal hitting sets of the minimal satisfying sets.

using NameSet = std::set<std::string>;

// Minimal keeps the sets that contain no other.
std::set<NameSet> Minimal(const std::set<NameSet>& sets) {
  std::set<NameSet> minimal;
  for (const NameSet& set : sets) {
    const bool contains_another = std::any_of(sets.begin(), sets.end(), [&](const NameSet& other) {
      return other != set && std::includes(set.begin(), set.end(), other.begin(), other.end());
    });
    if (!contains_another) minimal.insert(set);
  }
  return minimal;
}

void Combine(const std::vector<std::string>& members, std::size_t from, unsigned left,
             NameSet chosen, std::set<NameSet>& out) {
  if (left == 0) {
    out.insert(chosen);
    return;
  }
  for (std::size_t index = from; index + left <= members.size(); ++index) {
    NameSet with = chosen;
    with.insert("token:" + members[index]);
    Combine(members, index + 1, left - 1, with, out);
  }
}

std::set<NameSet> SatisfyingSets(const std::vector<PathExpression>& paths) {
  std::set<NameSet> sets;
  for (const PathExpression& path : paths) {
    NameSet all;
    const FactorTerm* shares = nullptr;
    for (const FactorTerm& term : path.factors) {
      if (term.kind == FactorKind::kShares) {
        shares = &term;
      } else {
        all.insert(FormatPathExpression({{term}}));
      }
    }
    if (shares == nullptr) {
      sets.insert(all);
    } else {
      Combine(shares->members, 0, shares->threshold, all, sets);
    }
  }
  return Minimal(sets);
}

// HittingSets: Berge's algorithm.
std::set<NameSet> HittingSets(const std::set<NameSet>& sets) {
  std::set<NameSet> hitting = {{}};
  for (const NameSet& set : sets) {
    std::set<NameSet> next;
    for (const NameSet& partial : hitting) {
      for (const std::string& name : set) {
        NameSet with = partial;
        with.insert(name);
        next.insert(std::move(with));
      }
    }
    hitting = Minimal(next);
  }
  return hitting;
}

std::set<NameSet> AsNames(const PathModel& model, const std::vector<FactorSet>& sets) {
  std::set<NameSet> names;
  for (const FactorSet set : sets) {
    const auto of_set = model.Names(set);
    names.insert(NameSet(of_set.begin(), of_set.end()));
  }
  EXPECT_EQ(names.size(), sets.size());
  return names;
}

std::string RandomPath(std::mt19937& random) {
  const auto below = [&](unsigned end) { return static_cast<unsigned>(random() % end); };
  std::string text;
  const auto add = [&](const std::string& factor) { text += (text.empty() ? "" : " & ") + factor; };
  std::vector<std::string> tokens = {"a", "b", "c", "d", "e"};
  std::shuffle(tokens.begin(), tokens.end(), random);
  std::size_t used = 0;
  if (below(3) == 0) {
    const unsigned num_members = 2 + below(3);
    std::string members;
    for (; used < num_members; ++used) {
      members += (used == 0 ? "token:" : ", token:") + tokens[used];
    }
    add(fmt::format("{} of ({})", 2 + below(num_members - 1), members));
  }
  if (below(2) == 0) add("token:" + tokens[used]);
  if (below(2) == 0) add("password");
  if (below(2) == 0) add(below(2) == 0 ? "tpm:db1" : "tpm:db2");
  return text.empty() ? "token:" + tokens[0] : text;
}

TEST(Recoverability, AgreesWithHittingSetsOnRandomPaths) {
  std::mt19937 random(20240817);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> texts;
    for (unsigned index = 0; index < 1 + round % 5U; ++index) texts.push_back(RandomPath(random));
    SCOPED_TRACE(fmt::format("{}", fmt::join(texts, "; ")));
    const auto paths = Expressions(texts);
    const auto analysed = Analyse(texts);
    const PathModel& model = analysed.model();
    const auto thefts = SatisfyingSets(paths);
    const auto losses = HittingSets(thefts);
    ASSERT_EQ(AsNames(model, analysed.minimal_thefts()), thefts);
    ASSERT_EQ(AsNames(model, analysed.minimal_losses()), losses);
    // Evaluation of any set agrees with the minimal sets, and so do the numbers.
    for (FactorSet set = 0; set < FactorSet{1} << model.factors().size(); ++set) {
      const auto names = model.Names(set);
      const NameSet chosen(names.begin(), names.end());
      const auto contained = [&](const NameSet& part) {
        return std::includes(chosen.begin(), chosen.end(), part.begin(), part.end());
      };
      const bool opened = std::any_of(thefts.begin(), thefts.end(), contained);
      const bool lost = std::any_of(losses.begin(), losses.end(), contained);
      ASSERT_EQ(model.Opened(set), opened);
      ASSERT_EQ(model.Recoverable(set), !lost);
      ASSERT_EQ(analysed.TheftsLeft(set) == 0, opened);
      ASSERT_EQ(analysed.LossesLeft(set) == 0, lost);
      if (chosen.size() <= analysed.survives()) {
        ASSERT_FALSE(lost);
      }
      if (chosen.size() <= analysed.withstands()) {
        ASSERT_FALSE(opened);
      }
    }
    EXPECT_TRUE(std::is_sorted(analysed.minimal_losses().begin(), analysed.minimal_losses().end(),
                               [](FactorSet left, FactorSet right) {
                                 return std::popcount(left) < std::popcount(right);
                               }));
  }
}

}  // namespace
}  // namespace keyescrow::envelope
