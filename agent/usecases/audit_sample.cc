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

// Drawable: the newest version of a key, with the hashes of its tokens' public keys.
struct Drawable {
  std::uint32_t version = 0;
  std::uint32_t revision = 0;
  std::set<std::string> token_keys;  // b64u
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

Status AddSummary(std::string_view line, Population& population) {
  ASSIGN_OR_RETURN(const EnvelopeSummary summary, ParseSummary(line));
  Drawable& newest = population.keys[summary.key_name];
  const std::pair place(summary.key_version, summary.revision);
  if (place <= std::pair(newest.version, newest.revision)) return Ok();
  newest = {summary.key_version, summary.revision, {}};
  const Json json = ParsePackJson(line);
  for (const Json& path : json["paths"]) {
    PackFields fields(path);
    AddTokenKeys(fields.List("factors"), newest.token_keys);
  }
  return Ok();
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
        population.keys[record.key_name] = {record.key_version, record.revision, {}};
      } else {
        status = AddSummary(SummaryLine(record, *sealed), population);
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
  RETURN_IF_ERROR(
      ForSummaries(pack, [&](std::string_view line) { return AddSummary(line, population); }));
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
    return Error(ErrorCode::kUsage, Action::kFixInput, "a sample has 1 to 65536 keys",
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
    sample.challenge.drawn.push_back({keys[i]->first, keys[i]->second.version, ""});
    token_keys.insert(keys[i]->second.token_keys.begin(), keys[i]->second.token_keys.end());
  }
  std::ranges::sort(sample.challenge.drawn, {}, &audit::DrawnPath::key_name);
  if (request.with_nonces) {
    RETURN_IF_ERROR(AddNonces(population, token_keys, *environment.random, sample));
  }
  return sample;
}

}  // namespace keyescrow::agent
