#include "agent/cli/recoverability_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/cli/terminal_text.h"

namespace keyescrow::agent {
namespace {

using testing::HasSubstr;

// KeyOf makes a key with the paths of the options "[ID=]EXPR".
KeyView KeyOf(const std::vector<std::string>& options) {
  KeyView key;
  std::vector<envelope::PathExpression> expressions;
  for (const std::string& option : options) {
    auto path = envelope::ParsePathOption(option);
    EXPECT_TRUE(path) << option;
    key.paths.emplace_back().id = path->id;
    expressions.push_back(path->expression);
  }
  auto analysed = envelope::Recoverability::Of(expressions);
  if (analysed) key.recoverability = std::move(*analysed);
  return key;
}

std::string Line(const std::vector<std::string>& options) {
  return RecoverabilityLine(RecoverabilityJson(KeyOf(options)));
}

TEST(RecoverabilityText, SaysWhatItSurvivesAndWhatOpensIt) {
  EXPECT_EQ(Line({"password & token:ops"}),
            "lost with token:ops or password; opened by token:ops + password");
  EXPECT_EQ(Line({"password & token:ops", "token:safe & tpm:db1"}),
            "survives the loss of any one; opened by token:ops + password or token:safe + tpm:db1");
  EXPECT_EQ(
      Line({"2 of (token:a, token:b, token:c, token:d)"}),
      "survives the loss of any two; opened by token:a + token:b or token:a + token:c or in 4 "
      "more ways");
}

TEST(RecoverabilityText, DrawsPathsAgainstFactors) {
  EXPECT_EQ(
      RecoverabilityDrawing(RecoverabilityJson(KeyOf(
          {"password & token:ops", "db=password & tpm:db1", "2 of (token:a, token:b, token:c)"}))),
      R"(  path       token:a  token:b  token:c  token:ops  password  tpm:db1
  token-ops     .        .        .         x         x         .
  db            .        .        .         .         x         x
  2of3        2of3     2of3     2of3        .         .         .
  survives the loss of any two; no single theft opens it
  lost with   token:a + token:b + password
              token:a + token:c + password
              token:b + token:c + password
              token:a + token:b + token:ops + tpm:db1
              token:a + token:c + token:ops + tpm:db1
              token:b + token:c + token:ops + tpm:db1
  opened by   token:a + token:b
              token:a + token:c
              token:b + token:c
              token:ops + password
              password + tpm:db1
)");
}

TEST(RecoverabilityText, StaysWithinEightyColumns) {
  const std::string drawing = RecoverabilityDrawing(RecoverabilityJson(
      KeyOf({"8 of (token:officer-01, token:officer-02, token:officer-03, token:officer-04, "
             "token:officer-05, token:officer-06, token:officer-07, token:officer-08, "
             "token:officer-09, token:officer-10, token:officer-11, token:officer-12)",
             "password & tpm:database-1.example.org"})));
  std::size_t start = 0;
  for (std::size_t end = 0; (end = drawing.find('\n', start)) != std::string::npos;
       start = end + 1) {
    EXPECT_LE(DisplayWidth(drawing.substr(start, end - start)), 80U) << drawing;
  }
  EXPECT_THAT(drawing, HasSubstr("A = token:officer-01"));
  EXPECT_THAT(drawing, HasSubstr("more sets; --json has all"));
}

TEST(RecoverabilityText, SaysWhereNothingIsComputed) {
  KeyView key;
  key.paths.emplace_back().id = "many";
  const Json json = RecoverabilityJson(key);
  EXPECT_TRUE(json.is_null());
  EXPECT_THAT(RecoverabilityLine(json), HasSubstr("too many factors"));
  EXPECT_THAT(RecoverabilityDrawing(json), HasSubstr("too many factors"));
}

TEST(RecoverabilityText, TheDocumentHasEverySet) {
  const Json json = RecoverabilityJson(KeyOf({"password & 2 of (token:a, token:b)", "token:z"}));
  EXPECT_EQ(json["survives"], 1);
  EXPECT_EQ(json["withstands"], 0);
  EXPECT_EQ(json["thefts"].dump(), R"([["token:z"],["token:a","token:b","password"]])");
  EXPECT_EQ(json["losses"].dump(),
            R"([["token:a","token:z"],["token:b","token:z"],["token:z","password"]])");
  EXPECT_EQ(json["paths"][0]["needs"].dump(), R"(["password"])");
  EXPECT_EQ(json["paths"][0]["officers"].dump(), R"(["token:a","token:b"])");
  EXPECT_EQ(json["paths"][0]["threshold"], 2);
  EXPECT_TRUE(json["paths"][1]["threshold"].is_null());
}

}  // namespace
}  // namespace keyescrow::agent
