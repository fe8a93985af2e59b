#include "agent/usecases/host_ties.h"

#include <optional>
#include <set>
#include <utility>

#include "agent/usecases/envelope_source.h"

namespace keyescrow::agent {

Result<HostTies> FindHostTies(Agent& agent, const store::TrustRecord& trusted) {
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  HostTies ties;
  // An agent that was added by its thumbprint alone has no name: its envelopes say its host.
  std::set<std::string> hosts;
  if (!trusted.name.empty()) hosts.insert(trusted.name);
  std::vector<HostTies::TpmPath> sealed_paths;
  std::optional<Error> failed;
  store::EscrowStore::EnvelopeQuery query;
  query.with_bytes = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    const auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) {
      failed = sealed.error();
      failed = std::move(*failed).WithContext(record.key_name);
      return false;
    }
    const envelope::Header& header = sealed->header();
    if (header.agent == trusted.thumbprint) {
      ties.signed_by.push_back({header.key_name, header.key_version});
      hosts.insert(header.host);
    }
    for (const envelope::PathRecord& path : header.paths) {
      for (const envelope::FactorRecord& factor : path.factors) {
        const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
        if (tpm == nullptr) continue;
        sealed_paths.push_back({{header.key_name, header.key_version}, path.id, tpm->host});
      }
    }
    return true;
  }));
  if (failed) return *failed;
  for (HostTies::TpmPath& path : sealed_paths) {
    if (hosts.contains(path.host)) ties.tpm_paths.push_back(std::move(path));
  }
  return ties;
}

Result<std::vector<HostTies::Version>> VersionsBeyond(Agent& agent,
                                                      const store::TrustRecord& trusted) {
  const envelope::ReadOptions trust{{{trusted.thumbprint, trusted.hosts, trusted.keys}}, true};
  std::vector<HostTies::Version> beyond;
  std::optional<Error> failed;
  store::EscrowStore::EnvelopeQuery query;
  query.with_bytes = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) {
      failed = std::move(sealed).error().WithContext(record.key_name);
      return false;
    }
    if (sealed->header().agent == trusted.thumbprint && !sealed->agent_trusted()) {
      beyond.push_back({record.key_name, record.key_version});
    }
    return true;
  }));
  if (failed) return *failed;
  return beyond;
}

}  // namespace keyescrow::agent
