#include "agent/cli/command_line.h"

#include <gtest/gtest.h>

#include <vector>

#include "agent/cli/command_table.h"

namespace keyescrow::agent {
namespace {

struct Parsed {
  GlobalOptions global;
  Result<ParsedCommand> result;
};

Parsed Parse(std::vector<const char*> words) {
  words.insert(words.begin(), "keyescrow");
  GlobalOptions global;
  auto result = ParseCommandLine(static_cast<int>(words.size()), words.data(), global);
  return {global, std::move(result)};
}

constexpr char kThumbprint[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

template <typename Options>
Options ParseAs(std::vector<const char*> words) {
  Parsed parsed = Parse(std::move(words));
  EXPECT_TRUE(parsed.result) << parsed.result.error().message();
  if (!parsed.result) return {};
  EXPECT_TRUE(std::holds_alternative<Options>(parsed.result->options));
  return std::get<Options>(parsed.result->options);
}

Error ErrorOf(std::vector<const char*> words) {
  Parsed parsed = Parse(std::move(words));
  if (parsed.result) {
    ADD_FAILURE() << "accepted";
    return Error(ErrorCode::kInternal, Action::kReportBug, "", "");
  }
  EXPECT_EQ(parsed.result.error().code(), ErrorCode::kUsage);
  EXPECT_FALSE(parsed.result.error().hint().empty());
  return parsed.result.error();
}

TEST(CommandLine, ParsesEveryOptionOfBackup) {
  const auto options = ParseAs<BackupOptions>({"backup",
                                               "prod/db",
                                               "--from",
                                               "-",
                                               "--path",
                                               "password & tpm",
                                               "--path",
                                               "safe=password & token:ops",
                                               "--kdf",
                                               "pbkdf2-sha512",
                                               "--prove",
                                               "safe",
                                               "--note",
                                               "a note",
                                               "-o",
                                               "/mnt/db.escrow",
                                               "--password-file",
                                               "safe=/run/p",
                                               "--password-fd",
                                               "3",
                                               "--new-password-file",
                                               "/run/n",
                                               "--pin-file",
                                               "ops=/run/pin",
                                               "--pin-fd",
                                               "4"});
  EXPECT_EQ(options.name, "prod/db");
  EXPECT_FALSE(options.all);
  EXPECT_EQ(options.from, "-");
  EXPECT_EQ(options.paths,
            (std::vector<std::string>{"password & tpm", "safe=password & token:ops"}));
  EXPECT_EQ(options.kdf, KdfChoice::kPbkdf2Sha512);
  EXPECT_EQ(options.prove, std::vector<std::string>{"safe"});
  EXPECT_EQ(options.note, "a note");
  EXPECT_EQ(options.output, "/mnt/db.escrow");
  EXPECT_EQ(options.secrets.password_files, std::vector<std::string>{"safe=/run/p"});
  EXPECT_EQ(options.secrets.password_fd, 3U);
  EXPECT_EQ(options.secrets.new_password_files, std::vector<std::string>{"/run/n"});
  EXPECT_EQ(options.secrets.pin_files, std::vector<std::string>{"ops=/run/pin"});
  EXPECT_EQ(options.secrets.pin_fd, 4U);
}

TEST(CommandLine, ParsesBackupOfAGeneratedKeyAndOfAll) {
  const auto generated =
      ParseAs<BackupOptions>({"backup", "k", "--generate=32", "--to=/etc/k", "--output", "f"});
  EXPECT_EQ(generated.generate_bytes, 32U);
  EXPECT_EQ(generated.to, "/etc/k");
  EXPECT_EQ(generated.output, "f");
  EXPECT_TRUE(ParseAs<BackupOptions>({"backup", "--all"}).all);
}

TEST(CommandLine, ParsesEveryOptionOfRestore) {
  const auto options = ParseAs<RestoreOptions>({"restore",
                                                "--to",
                                                "/etc/k",
                                                "db.escrow",
                                                "--via",
                                                "tpm",
                                                "--version",
                                                "3",
                                                "--reason",
                                                "r",
                                                "--expect",
                                                "k@3",
                                                "--replace",
                                                "--discard-previous",
                                                "--module",
                                                "m.so",
                                                "--agent",
                                                kThumbprint,
                                                "--use-last-try",
                                                "--event-log",
                                                "e.json",
                                                "--password-file",
                                                "-",
                                                "--pin-fd",
                                                "5"});
  EXPECT_EQ(options.name_or_file, "db.escrow");
  EXPECT_EQ(options.to, "/etc/k");
  EXPECT_EQ(options.via, "tpm");
  EXPECT_EQ(options.version, 3U);
  EXPECT_EQ(options.reason, "r");
  EXPECT_EQ(options.expect, "k@3");
  EXPECT_TRUE(options.replace);
  EXPECT_TRUE(options.discard_previous);
  EXPECT_EQ(options.module, "m.so");
  EXPECT_EQ(options.agent, kThumbprint);
  EXPECT_FALSE(options.accept_unknown_agent);
  EXPECT_TRUE(options.use_last_try);
  EXPECT_EQ(options.event_log, "e.json");
  EXPECT_EQ(options.secrets.password_files, std::vector<std::string>{"-"});
  EXPECT_EQ(options.secrets.pin_fd, 5U);
  EXPECT_TRUE(
      ParseAs<RestoreOptions>({"restore", "f", "--accept-unknown-agent"}).accept_unknown_agent);
}

TEST(CommandLine, ParsesTheOtherCommands) {
  ParseAs<InitOptions>({"init"});
  EXPECT_EQ(ParseAs<DoctorOptions>({"doctor", "--module", "m.so"}).module, "m.so");
  const auto add = ParseAs<TokenAddOptions>(
      {"token", "add", "ops", "pkcs11:token=ops", "--module", "m.so", "--use-last-try"});
  EXPECT_EQ(add.name, "ops");
  EXPECT_EQ(add.uri, "pkcs11:token=ops");
  EXPECT_EQ(add.module, "m.so");
  EXPECT_TRUE(add.use_last_try);
  const auto keygen = ParseAs<TokenKeygenOptions>(
      {"token", "keygen", "ops", "pkcs11:", "--module", "m.so", "--kind", "p256"});
  EXPECT_EQ(keygen.kind, TokenKeyKind::kP256);
  ParseAs<TokenListOptions>({"token", "list"});
  EXPECT_EQ(ParseAs<TokenShowOptions>({"token", "show", "ops"}).name, "ops");
  EXPECT_EQ(ParseAs<TokenRemoveOptions>({"token", "remove", "ops"}).name, "ops");
  const auto key = ParseAs<KeyAddOptions>(
      {"key", "add", "k", "--source", "luks:/dev/sda", "--path", "password"});
  EXPECT_EQ(key.source, "luks:/dev/sda");
  EXPECT_EQ(key.paths.size(), 1U);
  ParseAs<KeyListOptions>({"key", "list"});
  EXPECT_EQ(ParseAs<KeyRemoveOptions>({"key", "remove", "k"}).name, "k");
  const auto verify = ParseAs<VerifyOptions>(
      {"verify", "a", "b", "--trust", "t", "--agent", kThumbprint, "--since", "c"});
  EXPECT_EQ(verify.names_or_files, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(verify.since, "c");
  EXPECT_TRUE(ParseAs<VerifyOptions>({"verify"}).names_or_files.empty());
  EXPECT_EQ(ParseAs<ExportOptions>({"export", "k", "-o", "-"}).output, "-");
  EXPECT_EQ(ParseAs<ImportOptions>({"import", "f"}).file, "f");
  EXPECT_EQ(ParseAs<ImportEventOptions>({"import-event", "f"}).file, "f");
  ParseAs<ListOptions>({"list"});
  EXPECT_EQ(ParseAs<ShowOptions>({"show", "k", "--module", "m"}).module, "m");
  EXPECT_TRUE(ParseAs<StatusOptions>({"status", "--nagios"}).nagios);
  EXPECT_EQ(ParseAs<StatusOptions>({"status", "k"}).name, "k");
  ParseAs<AgentKeyShowOptions>({"agent-key", "show"});
  EXPECT_EQ(ParseAs<AgentKeyExportOptions>({"agent-key", "export"}).output, "");
  const auto trust = ParseAs<TrustAddOptions>(
      {"trust", "add", "t", "--host", "a", "--host", "b", "--key", "p/**"});
  EXPECT_EQ(trust.hosts, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(trust.keys, std::vector<std::string>{"p/**"});
  ParseAs<TrustListOptions>({"trust", "list"});
  EXPECT_EQ(ParseAs<TrustRemoveOptions>({"trust", "remove", "t"}).agent, "t");
  ParseAs<AuditLogOptions>({"audit", "log"});
  ParseAs<AuditCheckpointOptions>({"audit", "checkpoint"});
  EXPECT_TRUE(ParseAs<AuditAnchorOptions>({"audit", "anchor", "--new"}).renew);
  EXPECT_EQ(ParseAs<AuditAnchorOptions>({"audit", "anchor", "--accept", "why"}).accept, "why");
  EXPECT_EQ(ParseAs<AuditProveOptions>({"audit", "prove", "k"}).name, "k");
}

TEST(CommandLine, TakesGlobalOptionsBeforeAndAfterTheCommand) {
  const Parsed parsed =
      Parse({"--config", "c", "--state=s", "token", "--tpm", "none", "list", "--json", "--quiet",
             "--trace", "--no-input", "--yes", "--color", "never"});
  ASSERT_TRUE(parsed.result);
  EXPECT_EQ(parsed.result->name, "token list");
  EXPECT_EQ(parsed.global.config, "c");
  EXPECT_EQ(parsed.global.state, "s");
  EXPECT_EQ(parsed.global.tpm, "none");
  EXPECT_TRUE(parsed.global.json && parsed.global.quiet && parsed.global.trace &&
              parsed.global.no_input && parsed.global.yes);
  EXPECT_EQ(parsed.global.color, ColorMode::kNever);
}

TEST(CommandLine, KnowsThatJsonWasAskedForAlsoWhenItFails) {
  const Parsed parsed = Parse({"restore", "--nonsense", "--json"});
  EXPECT_FALSE(parsed.result);
  EXPECT_TRUE(parsed.global.json);
}

TEST(CommandLine, SuggestsTheNearestCommandAndOption) {
  EXPECT_NE(ErrorOf({"restor", "x"}).hint().find("'restore'"), std::string::npos);
  EXPECT_NE(ErrorOf({"token", "lst"}).hint().find("'token list'"), std::string::npos);
  EXPECT_NE(ErrorOf({"restore", "x", "--replcae"}).hint().find("--replace"), std::string::npos);
  EXPECT_NE(ErrorOf({"backup", "x", "--via", "y"}).hint().find("'restore'"), std::string::npos);
  EXPECT_NE(ErrorOf({"frobnicate"}).hint().find("keyescrow --help"), std::string::npos);
}

TEST(CommandLine, NamesWhatIsNotInThisVersion) {
  for (const std::string_view later : LaterCommands()) {
    const std::size_t space = later.find(' ');
    const std::string first(later.substr(0, space));
    std::vector<const char*> words = {first.c_str()};
    const std::string second(space == std::string_view::npos ? "" : later.substr(space + 1));
    if (!second.empty()) words.push_back(second.c_str());
    EXPECT_NE(ErrorOf(words).message().find("not in this version"), std::string::npos) << later;
  }
}

TEST(CommandLine, RefusesSecretsAsArgumentsWithoutRepeatingThem) {
  for (const char* option : {"--password", "--passphrase", "--pin", "--password=hunter2"}) {
    const Error error = ErrorOf({"restore", "x", option, "hunter2"});
    EXPECT_NE(error.message().find("refused"), std::string::npos) << option;
    EXPECT_EQ(error.message().find("hunter2"), std::string::npos);
    EXPECT_NE(error.hint().find("-file"), std::string::npos);
  }
  EXPECT_EQ(ErrorOf({"restore", "x", "--pasword=hunter2"}).message().find("hunter2"),
            std::string::npos);
}

TEST(CommandLine, RefusesWhatDoesNotFit) {
  (void)ErrorOf({});
  (void)ErrorOf({"--no-such"});
  (void)ErrorOf({"token"});
  (void)ErrorOf({"restore"});
  (void)ErrorOf({"restore", ""});
  (void)ErrorOf({"restore", "x", "y"});
  (void)ErrorOf({"restore", "x", "--to"});
  (void)ErrorOf({"restore", "x", "--to", ""});
  (void)ErrorOf({"restore", "x", "--to="});
  (void)ErrorOf({"restore", "x", "--to", "--json"});
  (void)ErrorOf({"restore", "x", "--to", "a", "--to", "b"});
  (void)ErrorOf({"restore", "x", "--replace=yes"});
  (void)ErrorOf({"restore", "x", "--version", "0"});
  (void)ErrorOf({"restore", "x", "--version", "1x"});
  (void)ErrorOf({"restore", "x", "--version", "+1"});
  (void)ErrorOf({"restore", "x", "--version", "18446744073709551616"});
  (void)ErrorOf({"restore", "x", "--version=-1"});
  (void)ErrorOf({"restore", "x", "--agent", kThumbprint, "--accept-unknown-agent"});
  for (const char* agent :
       {"agent.json", kThumbprint + 1, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"}) {
    EXPECT_NE(ErrorOf({"restore", "x", "--agent", agent}).message().find("thumbprint"),
              std::string::npos)
        << agent;
  }
  (void)ErrorOf({"restore", "x", "-x"});
  (void)ErrorOf({"backup"});
  (void)ErrorOf({"backup", "x", "--all"});
  (void)ErrorOf({"backup", "x", "--generate", "32"});
  (void)ErrorOf({"backup", "x", "--to", "f"});
  (void)ErrorOf({"backup", "x", "--generate", "0", "--to", "f"});
  (void)ErrorOf({"backup", "x", "--generate", "65537", "--to", "f"});
  (void)ErrorOf({"backup", "x", "--generate", "32", "--to", "f", "--from", "g"});
  (void)ErrorOf({"backup", "--all", "-o", "f"});
  (void)ErrorOf({"backup", "x", "--prove", "none", "--prove", "a"});
  (void)ErrorOf({"backup", "x", "--kdf", "md5"});
  (void)ErrorOf({"token", "add", "n"});
  (void)ErrorOf({"key", "add", "n"});
  (void)ErrorOf({"export", "n"});
  (void)ErrorOf({"completion"});
  (void)ErrorOf({"completion", "tcsh"});
  (void)ErrorOf({"list", "--color", "sometimes"});
}

TEST(CommandLine, EscapesWhatItQuotes) {
  const Error error = ErrorOf({"list", "\x1b[2Jevil"});
  EXPECT_EQ(error.message().find('\x1b'), std::string::npos);
  EXPECT_NE(error.message().find("\\x1b[2Jevil"), std::string::npos);
}

TEST(CommandLine, TakesWordsAfterTwoDashesAsTheyAre) {
  EXPECT_EQ(ParseAs<RestoreOptions>({"restore", "--", "--json"}).name_or_file, "--json");
  const Parsed parsed = Parse({"restore", "--", "--json"});
  EXPECT_FALSE(parsed.global.json);
  EXPECT_EQ(ParseAs<RestoreOptions>({"restore", "x", "--reason=-5 degrees"}).reason, "-5 degrees");
}

TEST(CommandLine, AnswersHelpAndVersionItself) {
  EXPECT_NE(ParseAs<TextToPrint>({"--help"}).text.find("Restore a key"), std::string::npos);
  EXPECT_NE(ParseAs<TextToPrint>({"restore", "-h"}).text.find("usage: keyescrow restore"),
            std::string::npos);
  EXPECT_NE(ParseAs<TextToPrint>({"restore", "--nonsense", "--help"}).text.find("--via ID"),
            std::string::npos);
  EXPECT_NE(ParseAs<TextToPrint>({"--config", "c", "token", "add", "--help"})
                .text.find("usage: keyescrow token add NAME URI [options]"),
            std::string::npos);
  EXPECT_NE(ParseAs<TextToPrint>({"token", "--help"}).text.find("keyescrow token remove"),
            std::string::npos);
  EXPECT_EQ(ParseAs<TextToPrint>({"version"}).text, "keyescrow " KEYESCROW_VERSION "\n");
  EXPECT_EQ(ParseAs<TextToPrint>({"--version"}).text, "keyescrow " KEYESCROW_VERSION "\n");
  EXPECT_NE(ParseAs<TextToPrint>({"version", "--json"}).text.find("keyescrow/version/1"),
            std::string::npos);
}

TEST(ParseCommandLine, TakesAThumbprintThatBeginsWithADash) {
  const std::string thumbprint = "-wzzp3AUc_lYt3WnNkUG0JuCFR3xir8_xJfKwJxdzwU";
  GlobalOptions global;
  const char* restore[] = {"keyescrow", "restore", "f.escrow", "--agent", thumbprint.c_str()};
  const auto parsed = ParseCommandLine(5, restore, global);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(std::get<RestoreOptions>(parsed->options).agent, thumbprint);
  const char* trust[] = {"keyescrow", "trust", "add", thumbprint.c_str()};
  const auto added = ParseCommandLine(4, trust, global);
  ASSERT_TRUE(added) << added.error().message();
  EXPECT_EQ(std::get<TrustAddOptions>(added->options).agent, thumbprint);
}

TEST(CommandLine, NamesTheCommandsThatTakeAnOptionOfOthers) {
  const std::string thumbprint(43, 'A');
  const std::string hint = ErrorOf({"show", "app.escrow", "--agent", thumbprint.c_str()}).hint();
  EXPECT_NE(hint.find("--agent belongs to 'restore'"), std::string::npos) << hint;
  EXPECT_NE(hint.find("'verify'"), std::string::npos) << hint;
  const std::string many = ErrorOf({"status", "--pin-file", "pin"}).hint();
  EXPECT_NE(many.find(" more; see "), std::string::npos) << many;
}

}  // namespace
}  // namespace keyescrow::agent
