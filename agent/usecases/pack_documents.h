// The JSON documents of an evidence pack about keys, as they are written (report/FORMAT.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "agent/store/escrow_store.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// FactorsJson: a path's `factors`, with the officers of shares; no salts, no blobs.
nlohmann::ordered_json FactorsJson(const envelope::PathRecord& path);

// SummaryLine: a line of `summaries/`: an envelope's facts, without salts and blobs.
std::string SummaryLine(const store::EnvelopeRecord& record,
                        const envelope::SealedEnvelope& sealed);

// TrustedAgentsJson and TokensJson: `keys/trusted-agents.json` and `keys/tokens.json`. The rows
// that are read have no more than what the document has. Errors: kLogDamaged.
std::string TrustedAgentsJson(const std::vector<store::TrustRecord>& agents);
Result<std::vector<store::TrustRecord>> ParseTrustedAgents(std::string_view text);
std::string TokensJson(const std::vector<store::TokenRecord>& tokens);
Result<std::vector<store::TokenRecord>> ParseTokens(std::string_view text);

}  // namespace keyescrow::agent
