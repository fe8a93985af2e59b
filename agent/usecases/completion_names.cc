#include "agent/usecases/completion_names.h"

#include <set>

#include "agent/store/store_reader.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {
namespace {

using Names = std::set<std::string>;

void AddKeys(store::StoreReader& reader, Names& names) {
  (void)reader.EnvelopeKeys([&](const store::EnvelopeKeyRow& row) {
    names.emplace(row.key_name);
    return true;
  });
  const auto destroyed = reader.Destroyed();
  if (!destroyed) return;
  for (const store::DestroyedRecord& gone : *destroyed) {
    if (!reader.FindEnvelope(gone.key_name)) names.erase(gone.key_name);
  }
}

void AddTokens(store::StoreReader& reader, std::string_view prefix, Names& names) {
  const auto tokens = reader.Tokens();
  if (!tokens) return;
  for (const store::TokenRecord& token : *tokens) names.insert(std::string(prefix) + token.name);
}

// AddPaths takes the ids of the header's paths, whoever signed it: nothing is opened.
void AddPaths(store::StoreReader& reader, std::string_view key_name, Names& names) {
  const auto record = reader.FindEnvelope(key_name);
  if (!record) return;
  envelope::ReadOptions options;
  options.accept_unknown_agent = true;
  const auto sealed = envelope::SealedEnvelope::Read(record->bytes, options);
  if (!sealed) return;
  for (const envelope::PathRecord& path : sealed->header().paths) names.insert(path.id);
}

}  // namespace

std::vector<std::string> CompletionNames(const std::string& state_dir, const AgentConfig& config,
                                         std::string_view kind, std::string_view key_name) {
  Names names;
  if (kind == "keys") {
    for (const DeclaredKey& key : config.keys) names.insert(key.name);
  }
  if (kind == "losses") {
    names.insert("password");
    if (!config.host.empty()) names.insert({"host:" + config.host, "tpm:" + config.host});
  }
  auto reader = store::StoreReader::Open(state_dir, store::ReaderMode::kLive);
  if (reader) {
    if (kind == "keys") AddKeys(**reader, names);
    if (kind == "tokens") AddTokens(**reader, "", names);
    if (kind == "losses") AddTokens(**reader, "token:", names);
    if (kind == "paths" && !key_name.empty()) AddPaths(**reader, key_name, names);
  }
  // A shell expands what it is given: only what our own names and paths are made of goes there.
  const auto is_safe = [](const std::string& name) {
    return name.find_first_not_of(
               "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/:-") ==
           std::string::npos;
  };
  std::vector<std::string> safe;
  std::copy_if(names.begin(), names.end(), std::back_inserter(safe), is_safe);
  return safe;
}

}  // namespace keyescrow::agent
