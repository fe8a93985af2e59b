// Registered tokens, trusted agents, portable files: the small use cases around the store.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/devices.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

class KeyLocation;

// LocateToken looks whether the token and its key are there, without a PIN: it costs no try.
// Errors: TokenFactor::Locate's.
Status LocateToken(const store::TokenRecord& record, Devices& devices);

struct TokenAddRequest {
  std::string name;
  std::string uri;
  std::string module;
  bool use_last_try = false;
  std::string pin_source;  // kept for later commands; "" for none
};
struct TokenAddResult {
  store::TokenRecord record;
  TokenKeyFacts key;
  bool evidence_read = false;
  std::vector<std::string> findings;
};

// AddToken finds the one public key that the URI names, reads the private key's attributes where a
// PIN can be had, and registers it. Errors: kInvalidName, kInvalidUri, kAlreadyExists, kModule*,
// kToken*, kWrongPin ….
Result<TokenAddResult> AddToken(Agent& agent, const TokenAddRequest& request, Secrets& secrets);
// GenerateToken makes a key pair on the token and registers it. Errors: as AddToken.
Result<TokenAddResult> GenerateToken(Agent& agent, const TokenAddRequest& request, bool p256,
                                     Secrets& secrets);
// StrandedKeys lists the keys of which no path is left once the token is gone.
Result<std::vector<std::string>> StrandedKeys(Agent& agent, const std::string& token_name);
Status RemoveToken(Agent& agent, const std::string& token_name);

struct TrustAddRequest {
  std::string agent;  // thumbprint, or the file of `agent-key export`
  std::vector<std::string> hosts;
  std::vector<std::string> keys;
};
struct TrustAddResult {
  store::TrustRecord record;
  std::vector<std::string> findings;  // what the policy would refuse, and only reports
};
// AddTrust. Errors: kUsage where `agent` names none; kPolicyRefused where the policy in force is
// signed, enforces, and no host or no key narrows the trust.
Result<TrustAddResult> AddTrust(Agent& agent, const TrustAddRequest& request);
Status RemoveTrust(Agent& agent, const std::string& thumbprint);

// AgentKeyDocument: what `agent-key export` writes and `trust add` and `verify --trust` read.
std::string AgentKeyDocument(Agent& agent);
struct TrustDocument {
  std::string host;
  std::string thumbprint;
  std::string origin;
  Bytes spki;
  std::vector<audit::NoteKey> log_keys;
  std::optional<envelope::AnchorKey> anchor;  // of the log's counter, where it has one
};
// Errors: kUsage where the text is no such document.
Result<TrustDocument> ParseAgentKeyDocument(std::string_view text);

struct ExportResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  Bytes32 envelope_hash{};
  std::string agent;  // the thumbprint of the key that signed the envelope
  std::string output;
  std::string receipt;  // file beside it, or ""
};
// ExportKey writes the newest envelope and, beside a file, its receipt (FILE.receipt).
Result<ExportResult> ExportKey(Agent& agent, const std::string& key_name, const std::string& sink);

struct ImportKeyResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  bool already_there = false;
  std::vector<std::string> findings;  // what the policy would refuse, and only reports
};
// ImportKey takes a trusted agent's envelope into the store. Another envelope of the same name and
// version is never replaced by an older or a different one, and the policy in force must allow its
// paths for that name. Errors: kAlreadyExists, kPathForbidden, kPolicyRefused, envelopes'.
Result<ImportKeyResult> ImportKey(Agent& agent, const std::string& file);

// CheckPortablePlace refuses to put an envelope in the place of anything but an envelope that the
// store keeps as well, or its receipt in the place of anything but a receipt: a portable file may
// be the only copy of another host's key, and any other file of a key that is in use.
// Errors: kDestinationOtherKey, CheckTakesFiles'.
Status CheckPortablePlace(Agent& agent, const KeyLocation& location);

// PortableFileEvent tells of one; it is in the log before the file is there.
audit::Event PortableFileEvent(const store::EnvelopeRecord& record);
// WritePortable writes an envelope, and its receipt beside a file; used by backup too. `receipt`:
// one that was made before; "": it is made now, of the newest checkpoint.
Result<std::string> WritePortable(Agent& agent, const store::EnvelopeRecord& record,
                                  const std::string& sink, std::string receipt = {});

}  // namespace keyescrow::agent
