// ReportModel: everything that a report says, as plain facts. HTML, JSON and CSV are made from it
// and from nothing else, so that they cannot disagree; the same model and `now` give the same
// bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace keyescrow::agent::report {

// kReportForm: raised whenever the same model gives other JSON, CSV or HTML. A pack states the form
// of its report, so that a verifier of another one says that it did not make it anew.
inline constexpr std::uint64_t kReportForm = 4;

struct ReportPath {
  std::string id;
  std::string expression;              // "password & token:ops"
  bool portable = false;               // needs no TPM
  std::string condition;               // "proven", "covered", "stale", "unproven", "broken"
  std::optional<std::int64_t> proven;  // Unix seconds, as all times here
  // When the recovery key that the path goes to was opened, where that tells more than a proof of
  // this envelope; lately, where it is "covered".
  std::optional<std::int64_t> covered_since;
  std::string failure;  // error code's name of the last failure, or ""
};

struct ReportKey {
  std::string name;
  bool declared = false;  // agent.toml says that it must be escrowed
  std::string source;     // where it is declared to live, or ""
  bool escrowed = false;  // what follows is of the newest version, and empty where it is not
  std::uint32_t version = 0;
  std::uint32_t revision = 0;
  std::uint32_t num_versions = 0;
  std::string host;
  std::string policy;
  std::string created;  // T
  std::string updated;  // T
  std::string agent;    // thumbprint
  bool agent_trusted = true;
  std::string envelope_id;
  std::string envelope_sha256;  // b64u
  std::string note;
  std::string survival;  // what the paths survive, one line, or ""
  std::vector<ReportPath> paths;
};

struct ReportFinding {
  std::string rule;
  std::string key;  // or ""
  bool critical = true;
  std::string what;
  std::string remedy;
};

// ForeignItem: what another tool escrowed, as `import` found it: not held, not proven, and no key
// of the population.
struct ForeignItem {
  std::string place;
  std::string item;        // "jwe", "token 3"
  std::string kind;        // "clevis-sss"
  std::string volume;      // UUID, or ""
  std::string expression;  // what it says opens it
  std::string survival;    // one line
  std::vector<std::string> caveats;
  std::string sha256;  // b64u, of the foreign text
  std::int64_t found = 0;
};

// Release: one restore, from its intent to its outcome.
struct Release {
  std::uint64_t seq = 0;                     // the entry of the intent, or of a refusal
  std::optional<std::uint64_t> outcome_seq;  // none: no outcome was logged
  std::int64_t time = 0;
  std::string key;
  std::uint32_t version = 0;
  std::string path;
  std::string actor;
  std::string host;
  std::string reason;
  std::string ticket;
  std::string outcome;    // "completed", "failed", "denied", "interrupted", "pending"
  std::string error;      // error code's name, or ""
  bool imported = false;  // from a run without state: nothing signed it before
  bool operator==(const Release&) const = default;
};

struct Verification {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  bool passed = false;
  std::string actor;
  std::string what;
  std::string error;
  bool operator==(const Verification&) const = default;
};

struct ReportCheckpoint {
  std::string origin;
  std::uint64_t size = 0;
  std::string root;  // standard base64
  std::string note;  // as it was signed
};

struct ReportModel {
  std::string host;
  std::string agent;    // thumbprint
  std::string policy;   // its name
  std::string version;  // of keyescrow
  // How old a proof may be by the policy: the shortest and the longest `drill_every` of its rules;
  // none: it asks for no drills.
  std::optional<std::int64_t> drill_every_shortest_s;
  std::optional<std::int64_t> drill_every_longest_s;
  std::int64_t now = 0;
  ReportCheckpoint checkpoint;
  std::vector<ReportKey> keys;       // by name; declared ones that are not escrowed among them
  std::vector<ForeignItem> foreign;  // by place and item
  std::vector<ReportFinding> findings;
  std::vector<Release> releases;  // in the order of the log
  std::vector<Verification> verifications;
  std::uint64_t num_drills_passed = 0;  // in the log
  std::uint64_t num_drills_failed = 0;
  std::vector<std::string> checked;  // sentences
  std::vector<std::string> not_checked;
};

// Coverage: where each key of the population stands; exactly one of them holds.
enum class Coverage : std::uint8_t { kProven, kCovered, kUnproven, kMissing };
// CoverageOf: proven where a path that needs no TPM is, else covered where one is.
Coverage CoverageOf(const ReportKey& key);

// Figure: one number of a report. The names are stable; see FiguresOf.
struct Figure {
  std::string_view name;
  std::uint64_t value = 0;
};
// FiguresOf counts. Every renderer prints these and counts nothing itself.
std::vector<Figure> FiguresOf(const ReportModel& model);
std::uint64_t FigureOf(const std::vector<Figure>& figures, std::string_view name);

// Complies: no finding is critical.
bool Complies(const ReportModel& model);

// AgeBucket: paths by the age of their last proof.
struct AgeBucket {
  std::string_view label;  // "up to 7 days", "never"
  bool fresh = false;      // whatever rule a path is under, such a proof is young enough
  std::uint64_t num_paths = 0;
};
std::vector<AgeBucket> DrillAges(const ReportModel& model);

// kQuery says which population a report is of.
inline constexpr std::string_view kQuery =
    "every key that agent.toml declares, and the newest version of every key in the store";

}  // namespace keyescrow::agent::report
