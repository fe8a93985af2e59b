#include "agent/usecases/audit_sample.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "agent/report/ustar.h"
#include "agent/usecases/pack_documents.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/verified_pack.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;

// Drawable: the version of a key that is in use, with its paths and the hashes of its tokens'
// public keys.
struct Drawable {
  std::uint32_t version = 0;
  std::vector<std::string> path_ids;  // none where the envelope could not be read
  std::set<std::string> token_keys;   // b64u
};

struct Population {
  std::string origin;
  std::map<std::string, Drawable> keys;  // by name
  std::vector<store::TokenRecord> tokens;
};

// AddTokenKeys collects what a summary's factors say of tokens, officers' too.
void AddTokenKeys(const Json& factors, std::set<std::string>& token_keys) {
  for (const Json& factor : factors) {
    PackFields fields(factor);
    const auto members = factor.find("members");
    if (members != factor.end()) AddTokenKeys(*members, token_keys);
    if (fields.Text("kind").starts_with("pkcs11-")) token_keys.insert(fields.Text("key_sha256"));
  }
}

// AddSummary: `summary` is that of `line`.
void AddSummary(const EnvelopeSummary& summary, std::string_view line, Population& population) {
  // Versions of one key follow each other; the one in use stays.
  Drawable& drawable = population.keys[summary.key_name];
  drawable = {summary.key_version, {}, {}};
  const Json json = ParsePackJson(line);
  for (const Json& path : json["paths"]) {
    PackFields fields(path);
    drawable.path_ids.push_back(fields.Text("id"));
    AddTokenKeys(fields.List("factors"), drawable.token_keys);
  }
}

// EntriesInUse: the entries whose envelopes the pack's inventory has as those in use.
Result<std::set<std::uint64_t>> EntriesInUse(const report::TarReader& pack) {
  ASSIGN_OR_RETURN(const std::string text, pack.Read("inventory.json"));
  const Json json = ParsePackJson(text);
  PackFields inventory(json);
  std::set<std::uint64_t> entries;
  for (const Json& item : inventory.List("escrowed")) {
    PackFields fields(item);
    entries.insert(fields.NumberOf<std::uint64_t>("log_seq"));
  }
  return entries;
}

Result<Population> OfState(Agent& agent, bool with_tokens) {
  Population population;
  population.origin = agent.identity().origin;
  const auto read = [&]() -> Status {
    store::EscrowStore::EnvelopeQuery query;
    query.with_bytes = true;
    envelope::ReadOptions any;
    any.accept_unknown_agent = true;
    Status status;
    RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
      if (record.standing != store::VersionStanding::kEscrowed) return true;
      // One that is damaged is drawn as well: its drill will tell.
      const auto sealed = envelope::SealedEnvelope::Read(record.bytes, any);
      if (!sealed) {
        population.keys[record.key_name] = {record.key_version, {}, {}};
        return true;
      }
      const std::string line = SummaryLine(record, *sealed);
      const auto summary = ParseSummary(line);
      if (summary) {
        AddSummary(*summary, line, population);
      } else {
        status = summary.error();
      }
      return status.has_value();
    }));
    RETURN_IF_ERROR(std::move(status));
    if (with_tokens) {
      ASSIGN_OR_RETURN(population.tokens, agent.store().Tokens());
    }
    return Ok();
  };
  RETURN_IF_ERROR(agent.store().ReadTogether(read));
  return population;
}

Result<Population> OfPack(Agent* agent, const SampleRequest& request) {
  ASSIGN_OR_RETURN(const report::TarReader pack,
                   OpenVerifiedPack(agent, {request.pack, request.trust, request.trusted_agent}));
  Population population;
  ASSIGN_OR_RETURN(const std::string document, pack.Read("keys/agent-key.json"));
  ASSIGN_OR_RETURN(const TrustDocument keys, ParseAgentKeyDocument(document));
  population.origin = keys.origin;
  // Not the highest version: a rotation that was abandoned left a newer one.
  ASSIGN_OR_RETURN(const std::set<std::uint64_t> in_use, EntriesInUse(pack));
  RETURN_IF_ERROR(ForSummaries(pack, [&](std::string_view line) -> Status {
    ASSIGN_OR_RETURN(const EnvelopeSummary summary, ParseSummary(line));
    if (in_use.contains(summary.log_seq)) AddSummary(summary, line, population);
    return Ok();
  }));
  ASSIGN_OR_RETURN(const std::string tokens, pack.Read("keys/tokens.json"));
  ASSIGN_OR_RETURN(population.tokens, ParseTokens(tokens));
  return population;
}

// Below returns a uniform number from 0 to bound - 1.
Result<std::size_t> Below(RandomSource& random, std::size_t bound) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t limit = kMax - kMax % bound;  // a multiple of the bound
  for (;;) {
    std::array<std::uint8_t, 8> bytes{};
    RETURN_IF_ERROR(random.Fill(bytes));
    std::uint64_t number = 0;
    for (const std::uint8_t byte : bytes) number = number << 8U | byte;
    if (number < limit) return static_cast<std::size_t>(number % bound);
  }
}

// AddNonces wraps a nonce to each token of the drawn keys.
Status AddNonces(const Population& population, const std::set<std::string>& token_keys,
                 RandomSource& random, Sample& sample) {
  std::set<std::string> left = token_keys;
  for (const store::TokenRecord& token : population.tokens) {
    if (left.erase(EncodeBase64Url(Sha256(token.spki))) == 0) continue;
    ASSIGN_OR_RETURN(const audit::WrappedNonce nonce,
                     audit::WrapNonce({token.name, token.spki, token.uri}, random));
    sample.challenge.tokens.push_back(nonce.record);
    sample.expected.answers.push_back(nonce.expected);
  }
  sample.no_nonces.assign(left.begin(), left.end());
  return Ok();
}

}  // namespace

Result<Sample> DrawSample(const Environment& environment, Agent* agent,
                          const SampleRequest& request) {
  if (request.num_keys == 0 || request.num_keys > audit::kMaxDrawn) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "a sample has 1 to " + std::to_string(audit::kMaxDrawn) + " keys",
                 "give that many with -n");
  }
  ASSIGN_OR_RETURN(const Population population, request.pack.empty()
                                                    ? OfState(*agent, request.with_nonces)
                                                    : OfPack(agent, request));
  if (population.keys.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is escrowed there",
                 "escrow one with 'keyescrow backup NAME --from FILE --path EXPR'");
  }
  Sample sample;
  sample.num_population = population.keys.size();
  sample.challenge.origin = population.origin;
  sample.challenge.created = environment.clock->NowUnixSeconds();
  RETURN_IF_ERROR(environment.random->Fill(sample.challenge.nonce));
  sample.expected.nonce = sample.challenge.nonce;
  std::vector<const std::pair<const std::string, Drawable>*> keys;
  for (const auto& key : population.keys) keys.push_back(&key);
  const std::size_t num_drawn = std::min(request.num_keys, keys.size());
  std::set<std::string> token_keys;
  for (std::size_t i = 0; i < num_drawn; ++i) {
    ASSIGN_OR_RETURN(const std::size_t at, Below(*environment.random, keys.size() - i));
    std::swap(keys[i], keys[i + at]);
    const auto& [name, drawable] = *keys[i];
    sample.drawn.emplace_back(name, drawable.version);
    token_keys.insert(drawable.token_keys.begin(), drawable.token_keys.end());
    // By name, so that a path that is removed before the drill is missed.
    for (const std::string& path_id : drawable.path_ids) {
      sample.challenge.drawn.push_back({name, drawable.version, path_id});
    }
    if (drawable.path_ids.empty()) sample.challenge.drawn.push_back({name, drawable.version, ""});
  }
  if (sample.challenge.drawn.size() > audit::kMaxDrawn) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the drawn keys have " + std::to_string(sample.challenge.drawn.size()) +
                     " paths, and a challenge holds " + std::to_string(audit::kMaxDrawn),
                 "draw fewer keys with -n");
  }
  std::ranges::sort(sample.drawn);
  std::ranges::stable_sort(sample.challenge.drawn, {}, &audit::DrawnPath::key_name);
  if (request.with_nonces) {
    RETURN_IF_ERROR(AddNonces(population, token_keys, *environment.random, sample));
  }
  return sample;
}

}  // namespace keyescrow::agent
