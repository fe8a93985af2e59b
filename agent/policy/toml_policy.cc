#include <array>
#include <new>
#include <set>

#include "agent/policy/policy.h"
#include "agent/policy/toml_reader.h"
#include "agent/policy/version.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/header.h"
#include "envelope/password.h"

namespace keyescrow::agent::policy {
namespace {

constexpr std::string_view kRootKeys[] = {"policy",        "signers", "passwords", "tokens",
                                          "recovery_keys", "rule",    "exception"};
constexpr std::string_view kPolicyKeys[] = {"name",    "serial",    "mode", "min_agent_version",
                                            "expires", "simulators"};
constexpr std::string_view kSignersKeys[] = {"threshold", "keys"};
constexpr std::string_view kPasswordKeys[] = {"profile", "min_length", "blocklist",
                                              "blocklist_sha256"};
constexpr std::string_view kTokenKeys[] = {"spki_sha256", "assurance"};
constexpr std::string_view kRecoveryKeys[] = {"public_thumbprint"};
constexpr std::string_view kRuleKeys[] = {
    "name",        "match",       "mode",         "grace",
    "require",     "forbid",      "password",     "survive",
    "withstand",   "portable",    "kdf",          "fips",
    "drill_every", "drill_paths", "rotate_every", "rotate_after_restore",
    "reason",      "ticket"};
constexpr std::string_view kKdfKeys[] = {"argon2id_min_memory_kib", "argon2id_min_passes",
                                         "pbkdf2_min_iterations"};
constexpr std::string_view kExceptionKeys[] = {"key", "host", "rule", "until", "reason"};
constexpr std::string_view kModes[] = {"report", "enforce"};
constexpr std::string_view kSimulators[] = {"forbidden", "reported", "allowed"};
constexpr std::string_view kAssurances[] = {"software", "asserted", "attested"};
constexpr std::string_view kProfiles[] = {"nist-800-63b", "ssrs"};
constexpr std::string_view kReasons[] = {"optional", "required"};
constexpr char kPathHint[] = "write for example require = [\"password & token:ops\"]";
constexpr std::int64_t kMaxSerial = 9007199254740991;  // what JSON readers keep exactly
constexpr std::size_t kMaxNamed = 256;

class PolicyReader {
 public:
  explicit PolicyReader(const std::string& file) : toml_(file) {}

  Result<Policy> Root(const toml::table& root, std::string_view agent_version) {
    RETURN_IF_ERROR(CheckVersion(root, agent_version));
    RETURN_IF_ERROR(toml_.CheckKeys(root, kRootKeys, "the file"));
    RETURN_IF_ERROR(Head(root));
    RETURN_IF_ERROR(ReadSigners(root));
    RETURN_IF_ERROR(Named(root, "passwords", &PolicyReader::ReadPassword));
    RETURN_IF_ERROR(Named(root, "tokens", &PolicyReader::ReadToken));
    RETURN_IF_ERROR(Named(root, "recovery_keys", &PolicyReader::ReadRecoveryKey));
    ASSIGN_OR_RETURN(const auto rules, toml_.Tables(root, "rule", kMaxRules));
    if (rules.empty()) {
      return toml_.Wrong({1, 1}, "there is no [[rule]]",
                         "a policy has at least one; match = \"**\" means every key");
    }
    for (const toml::table* table : rules) RETURN_IF_ERROR(ReadRule(*table));
    ASSIGN_OR_RETURN(const auto exceptions, toml_.Tables(root, "exception", kMaxNamed));
    for (const toml::table* table : exceptions) RETURN_IF_ERROR(ReadException(*table));
    return std::move(policy_);
  }

  // NameAndSerial reads those alone, of a policy whose other words may be newer than this version.
  Result<Policy> NameAndSerial(const toml::table& root) {
    RETURN_IF_ERROR(toml_.Missing(root, "policy", "the file"));
    ASSIGN_OR_RETURN(const toml::table* head, toml_.Table(*root.get("policy"), "policy"));
    for (const std::string_view key : {"name", "serial"}) {
      RETURN_IF_ERROR(toml_.Missing(*head, key, "[policy]"));
    }
    RETURN_IF_ERROR(toml_.Name(*head, "name", &policy_.name));
    RETURN_IF_ERROR(toml_.Integer(*head, "serial", 1, kMaxSerial, &policy_.serial));
    RETURN_IF_ERROR(toml_.Text(*head, "min_agent_version", &policy_.min_agent_version));
    return std::move(policy_);
  }

  Error Wrong(const toml::source_position& at, std::string_view cause, std::string hint) const {
    return toml_.Wrong(at, cause, std::move(hint));
  }

 private:
  using Named1 = Status (PolicyReader::*)(const std::string&, const toml::table&);

  // CheckVersion comes before everything that a newer policy may hold and this version not know.
  Status CheckVersion(const toml::table& root, std::string_view agent_version) const {
    const toml::table* head = root["policy"].as_table();
    const toml::node* node = head != nullptr ? head->get("min_agent_version") : nullptr;
    const toml::value<std::string>* text = node != nullptr ? node->as_string() : nullptr;
    if (text == nullptr || !IsVersion(text->get()) || !IsOlder(agent_version, text->get())) {
      return Ok();
    }
    return Error(ErrorCode::kPolicyNewerAgent, Action::kFixInput,
                 fmt::format("the policy asks for keyescrow {} or newer, this is {}", text->get(),
                             agent_version),
                 "install that version; until then the policy in force stays");
  }

  Status Head(const toml::table& root) {
    RETURN_IF_ERROR(toml_.Missing(root, "policy", "the file"));
    ASSIGN_OR_RETURN(const toml::table* head, toml_.Table(*root.get("policy"), "policy"));
    RETURN_IF_ERROR(toml_.CheckKeys(*head, kPolicyKeys, "[policy]"));
    for (const std::string_view key : {"name", "serial", "mode"}) {
      RETURN_IF_ERROR(toml_.Missing(*head, key, "[policy]"));
    }
    RETURN_IF_ERROR(toml_.Name(*head, "name", &policy_.name));
    RETURN_IF_ERROR(toml_.Integer(*head, "serial", 1, kMaxSerial, &policy_.serial));
    RETURN_IF_ERROR(toml_.Choice(*head, "mode", kModes, &policy_.mode));
    ASSIGN_OR_RETURN(const bool versioned,
                     toml_.Text(*head, "min_agent_version", &policy_.min_agent_version));
    if (versioned && !IsVersion(policy_.min_agent_version)) {
      return toml_.Wrong(toml_.At(*head->get("min_agent_version")),
                         "'min_agent_version' is not a version",
                         "write min_agent_version = \"1.0\"");
    }
    std::int64_t expires = 0;
    ASSIGN_OR_RETURN(const bool ends, toml_.Time(*head, "expires", &expires));
    if (ends) policy_.expires = expires;
    return TomlReader::Drop(toml_.Choice(*head, "simulators", kSimulators, &policy_.simulators));
  }

  Status ReadSigners(const toml::table& root) {
    const toml::node* node = root.get("signers");
    if (node == nullptr) return Ok();
    ASSIGN_OR_RETURN(const toml::table* table, toml_.Table(*node, "signers"));
    RETURN_IF_ERROR(toml_.CheckKeys(*table, kSignersKeys, "[signers]"));
    RETURN_IF_ERROR(toml_.Missing(*table, "keys", "[signers]"));
    std::vector<std::pair<std::string, toml::source_position>> texts;
    RETURN_IF_ERROR(toml_.Texts(*table, "keys", kMaxSigners, &texts));
    Signers& signers = policy_.signers.emplace();
    for (const auto& [text, at] : texts) {
      auto key = envelope::NoteKey::FromVkey(text);
      if (!key) {
        return toml_.Wrong(at, "a signer is not a verifier key",
                           "copy what 'keyescrow policy sign --new-key' printed: name+id+base64");
      }
      for (const envelope::NoteKey& other : signers.keys) {
        if (other.ed25519 != key->ed25519 || !(other.p256 == key->p256)) continue;
        return toml_.Wrong(at, fmt::format("'{}' and '{}' are one key", other.name, key->name),
                           "each signer has a key of their own");
      }
      signers.keys.push_back(std::move(*key));
    }
    signers.threshold = signers.keys.size();
    return TomlReader::Drop(toml_.Integer(*table, "threshold", 1,
                                          static_cast<std::int64_t>(signers.keys.size()),
                                          &signers.threshold));
  }

  Status Named(const toml::table& root, std::string_view name, Named1 read) {
    const toml::node* node = root.get(name);
    if (node == nullptr) return Ok();
    const toml::table* tables = node->as_table();
    if (tables == nullptr || tables->size() > kMaxNamed) {
      return toml_.Wrong(toml_.At(*node), fmt::format("'{}' is not a table of tables", name),
                         fmt::format("write [{}.NAME] on a line of its own", name));
    }
    for (const auto& [key, value] : *tables) {
      const std::string entry(key.str());
      if (!envelope::IsName(entry) || !value.is_table()) {
        return toml_.Wrong(key.source().begin,
                           fmt::format("[{}.…] has no name of letters, digits, "
                                       "'.', '_' and '-'",
                                       name),
                           fmt::format("write [{}.NAME] on a line of its own", name));
      }
      RETURN_IF_ERROR((this->*read)(entry, *value.as_table()));
    }
    return Ok();
  }

  Status ReadPassword(const std::string& name, const toml::table& table) {
    RETURN_IF_ERROR(toml_.CheckKeys(table, kPasswordKeys, "[passwords." + name + "]"));
    if (std::find(std::begin(kProfiles), std::end(kProfiles), name) != std::end(kProfiles)) {
      return toml_.Wrong(toml_.At(table), "the profile '" + name + "' is built in",
                         "choose another name, with profile = \"" + name + "\"");
    }
    PasswordRule rule;
    rule.name = name;
    RETURN_IF_ERROR(toml_.Choice(table, "profile", kProfiles, &rule.profile));
    RETURN_IF_ERROR(toml_.Integer(table, "min_length", 8, std::int64_t{envelope::kMaxPasswordBytes},
                                  &rule.min_length));
    ASSIGN_OR_RETURN(const bool listed, toml_.Text(table, "blocklist", &rule.blocklist));
    ASSIGN_OR_RETURN(const bool hashed,
                     toml_.ReadHash(table, "blocklist_sha256", &rule.blocklist_sha256));
    if (listed != hashed) {
      return toml_.Wrong(toml_.At(table), "'blocklist' and 'blocklist_sha256' come together",
                         "run sha256sum on the list and write both");
    }
    if (listed && !envelope::IsName(rule.blocklist)) {
      return toml_.Wrong(toml_.At(*table.get("blocklist")),
                         "'blocklist' is not the name of a file beside the policy",
                         "put the file beside the policy, and write its name without a folder");
    }
    policy_.passwords.push_back(std::move(rule));
    return Ok();
  }

  Status ReadToken(const std::string& name, const toml::table& table) {
    const std::string where = "[tokens." + name + "]";
    RETURN_IF_ERROR(toml_.CheckKeys(table, kTokenKeys, where));
    RETURN_IF_ERROR(toml_.Missing(table, "spki_sha256", where));
    TokenPin pin;
    pin.name = name;
    RETURN_IF_ERROR(toml_.ReadHash(table, "spki_sha256", &pin.spki_sha256));
    RETURN_IF_ERROR(toml_.Choice(table, "assurance", kAssurances, &pin.assurance));
    for (const TokenPin& other : policy_.tokens) {
      if (other.spki_sha256 != pin.spki_sha256) continue;
      return toml_.Wrong(toml_.At(table),
                         fmt::format("[tokens.{}] and {} pin one key", other.name, where),
                         "a token's key has one name");
    }
    policy_.tokens.push_back(std::move(pin));
    return Ok();
  }

  Status ReadRecoveryKey(const std::string& name, const toml::table& table) {
    const std::string where = "[recovery_keys." + name + "]";
    RETURN_IF_ERROR(toml_.CheckKeys(table, kRecoveryKeys, where));
    RETURN_IF_ERROR(toml_.Missing(table, "public_thumbprint", where));
    RecoveryKeyPin pin{name, ""};
    RETURN_IF_ERROR(toml_.Text(table, "public_thumbprint", &pin.public_thumbprint));
    const auto bytes = DecodeBase64Url(pin.public_thumbprint);
    if (!bytes || bytes->size() != 32) {
      return toml_.Wrong(toml_.At(*table.get("public_thumbprint")),
                         "'public_thumbprint' is not an RFC 7638 thumbprint",
                         "it has 43 characters of base64url");
    }
    policy_.recovery_keys.push_back(std::move(pin));
    return Ok();
  }

  Status ReadRule(const toml::table& table) {
    RETURN_IF_ERROR(toml_.CheckKeys(table, kRuleKeys, "[[rule]]"));
    for (const std::string_view key : {"name", "match"}) {
      RETURN_IF_ERROR(toml_.Missing(table, key, "[[rule]]"));
    }
    Rule rule;
    rule.line = toml_.At(table).line;
    RETURN_IF_ERROR(toml_.Text(table, "name", &rule.name));
    if (const Rule* other = policy_.FindRule(rule.name)) {
      return toml_.Wrong(
          toml_.At(*table.get("name")),
          fmt::format("two rules are called '{}', the first on line {}", rule.name, other->line),
          "give each rule a name of its own: findings and exceptions use it");
    }
    RETURN_IF_ERROR(toml_.Pattern(table, "match", &rule.match));
    Mode mode{};
    ASSIGN_OR_RETURN(const bool has_mode, toml_.Choice(table, "mode", kModes, &mode));
    if (has_mode) rule.mode = mode;
    RETURN_IF_ERROR(toml_.Duration(table, "grace", &rule.grace_s));
    RETURN_IF_ERROR(Paths(table, "require", &rule.require));
    RETURN_IF_ERROR(Paths(table, "forbid", &rule.forbid));
    ASSIGN_OR_RETURN(const bool profiled, toml_.Text(table, "password", &rule.password_profile));
    if (profiled) RETURN_IF_ERROR(CheckProfile(table, rule.password_profile));
    RETURN_IF_ERROR(toml_.Integer(table, "survive", 0, 15, &rule.survive));
    RETURN_IF_ERROR(toml_.Integer(table, "withstand", 0, 15, &rule.withstand));
    RETURN_IF_ERROR(toml_.Boolean(table, "portable", &rule.portable));
    RETURN_IF_ERROR(Kdf(table, &rule.kdf));
    RETURN_IF_ERROR(toml_.Boolean(table, "fips", &rule.fips));
    RETURN_IF_ERROR(toml_.OptionalDuration(table, "drill_every", &rule.drill_every_s));
    RETURN_IF_ERROR(DrillPaths(table, &rule));
    RETURN_IF_ERROR(toml_.OptionalDuration(table, "rotate_every", &rule.rotate_every_s));
    RETURN_IF_ERROR(
        toml_.OptionalDuration(table, "rotate_after_restore", &rule.rotate_after_restore_s));
    RETURN_IF_ERROR(toml_.Choice(table, "reason", kReasons, &rule.reason_required));
    ASSIGN_OR_RETURN(const bool ticketed, toml_.Text(table, "ticket", &rule.ticket));
    if (ticketed) {
      if (const std::string wrong = CheckTicketExpression(rule.ticket); !wrong.empty()) {
        return toml_.Wrong(toml_.At(*table.get("ticket")), "'ticket' " + wrong,
                           "write a POSIX extended regular expression, as in "
                           "\"^(INC|CHG)-[0-9]+$\"");
      }
    }
    policy_.rules.push_back(std::move(rule));
    return Ok();
  }

  Status ReadException(const toml::table& table) {
    RETURN_IF_ERROR(toml_.CheckKeys(table, kExceptionKeys, "[[exception]]"));
    for (const std::string_view key : {"key", "rule", "until", "reason"}) {
      RETURN_IF_ERROR(toml_.Missing(table, key, "[[exception]]"));
    }
    Exception exception;
    RETURN_IF_ERROR(toml_.Pattern(table, "key", &exception.key));
    RETURN_IF_ERROR(toml_.Name(table, "host", &exception.host));
    RETURN_IF_ERROR(toml_.Text(table, "rule", &exception.rule));
    if (policy_.FindRule(exception.rule) == nullptr) {
      std::vector<std::string_view> names;
      for (const Rule& rule : policy_.rules) names.push_back(rule.name);
      return toml_.Wrong(toml_.At(*table.get("rule")),
                         fmt::format("no rule is called '{}'{}", exception.rule,
                                     DidYouMean(exception.rule, names)),
                         "an exception is from one [[rule]], by its name");
    }
    RETURN_IF_ERROR(toml_.Time(table, "until", &exception.until));
    RETURN_IF_ERROR(toml_.Text(table, "reason", &exception.reason));
    if (envelope::IsBlankText(exception.reason)) {
      return toml_.Wrong(TomlReader::At(*table.get("reason")),
                         "the exception's reason says nothing",
                         "say why the rule is set aside: auditors read it");
    }
    policy_.exceptions.push_back(std::move(exception));
    return Ok();
  }

  // ---- values

  Status Paths(const toml::table& table, std::string_view key,
               std::vector<envelope::PathExpression>* out) const {
    std::vector<std::pair<std::string, toml::source_position>> texts;
    RETURN_IF_ERROR(toml_.Texts(table, key, envelope::kMaxPaths, &texts));
    for (const auto& [text, at] : texts) {
      auto expression = envelope::ParsePathExpression(text);
      if (!expression) {
        return toml_.Wrong(at, fmt::format("'{}': {}", key, expression.error().message()),
                           kPathHint);
      }
      if (std::find(out->begin(), out->end(), *expression) != out->end()) {
        return toml_.Wrong(at, fmt::format("'{}' names one path twice", key), kPathHint);
      }
      out->push_back(std::move(*expression));
    }
    return Ok();
  }

  Status CheckProfile(const toml::table& table, const std::string& name) const {
    std::vector<std::string_view> known(std::begin(kProfiles), std::end(kProfiles));
    for (const PasswordRule& rule : policy_.passwords) known.push_back(rule.name);
    if (std::find(known.begin(), known.end(), name) != known.end()) return Ok();
    return toml_.Wrong(
        toml_.At(*table.get("password")),
        fmt::format("no password profile is called '{}'{}", name, DidYouMean(name, known)),
        fmt::format("it is one of: {}", fmt::join(known, ", ")));
  }

  Status Kdf(const toml::table& table, KdfMinima* out) const {
    const toml::node* node = table.get("kdf");
    if (node == nullptr) return Ok();
    const toml::table* kdf = node->as_table();
    if (kdf == nullptr) {
      return toml_.Wrong(toml_.At(*node), "'kdf' is not a table",
                         "write kdf = { argon2id_min_passes = 4 }");
    }
    RETURN_IF_ERROR(toml_.CheckKeys(*kdf, kKdfKeys, "kdf"));
    constexpr std::int64_t kMost = 0x7FFFFFFF;
    const auto read = [&](std::string_view key, std::optional<std::uint32_t>* minimum) -> Status {
      std::uint32_t value = 0;
      ASSIGN_OR_RETURN(const bool found, toml_.Integer(*kdf, key, 1, kMost, &value));
      if (found) *minimum = value;
      return Ok();
    };
    RETURN_IF_ERROR(read("argon2id_min_memory_kib", &out->argon2id_memory_kib));
    RETURN_IF_ERROR(read("argon2id_min_passes", &out->argon2id_passes));
    return read("pbkdf2_min_iterations", &out->pbkdf2_iterations);
  }

  Status DrillPaths(const toml::table& table, Rule* rule) const {
    std::vector<std::pair<std::string, toml::source_position>> texts;
    ASSIGN_OR_RETURN(const bool found,
                     toml_.Texts(table, "drill_paths", envelope::kMaxPaths, &texts));
    if (found && !rule->drill_every_s) {
      return toml_.Wrong(toml_.At(*table.get("drill_paths")), "'drill_paths' without 'drill_every'",
                         "add drill_every = \"90d\"");
    }
    for (auto& [text, at] : texts) {
      if (!envelope::IsPathId(text)) {
        return toml_.Wrong(at, "'drill_paths' has what is no path's id",
                           "ids stand in front of a path, or are its factors but the password, "
                           "as in \"token-ops\"");
      }
      rule->drill_paths.push_back(std::move(text));
    }
    return Ok();
  }

  TomlReader toml_;
  Policy policy_;
};

// WithTable calls `read` with the file's table; what toml++ throws becomes an error here.
template <typename Read>
Result<Policy> WithTable(std::string_view text, const std::string& file, Read read) {
  PolicyReader reader(file);
  if (text.size() > kMaxPolicyBytes) {
    return reader.Wrong({1, 1}, "the file is larger than 256 KiB", "check that it is a policy");
  }
  if (text.starts_with("\xEF\xBB\xBF")) {
    return reader.Wrong({1, 1}, "the file begins with a byte order mark",
                        "save it as UTF-8 without a byte order mark (BOM), and sign it then");
  }
  if (const std::uint32_t line = LineOfLongKey(text); line != 0) {
    return reader.Wrong({line, 1}, "a key has more than 64 parts", "correct that line");
  }
  try {
    ASSIGN_OR_RETURN(Policy policy, read(reader, toml::parse(text)));
    policy.sha256 = Sha256(AsBytes(text));
    return policy;
  } catch (const toml::parse_error& error) {
    return reader.Wrong(error.source().begin, error.description(), "correct the TOML on that line");
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState,
                 "not enough memory to read " + file, "free some memory and try again");
  }
}

}  // namespace

Result<Policy> ParsePolicy(std::string_view text, const std::string& file,
                           std::string_view agent_version) {
  return WithTable(text, file, [&](PolicyReader& reader, const toml::table& root) {
    return reader.Root(root, agent_version);
  });
}

Result<Policy> ParsePolicyHead(std::string_view text, const std::string& file) {
  return WithTable(text, file, [](PolicyReader& reader, const toml::table& root) {
    return reader.NameAndSerial(root);
  });
}

}  // namespace keyescrow::agent::policy
