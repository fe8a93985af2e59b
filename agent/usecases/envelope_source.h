// NAME|FILE: where an envelope comes from, and whose signature counts.
#pragma once

#include <optional>
#include <string>

#include "agent/usecases/agent.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

struct EnvelopeSource {
  Bytes bytes;
  std::string file;  // path, or "" where it came from the store
  std::optional<store::EnvelopeRecord> record;
};

// FindEnvelope takes a file where the text ends in ".escrow", starts with "/", "./", "../" or
// "file:", or names no escrowed key but an existing file; else the store's envelope of that key.
// Errors: kKeyNotFound, kVersionNotFound, kEnvelopeUnreadable, kNotInitialized (no state and no
// file), kInvalidName, Failure::kLimit for a file over 3 MiB.
Result<EnvelopeSource> FindEnvelope(Agent* agent, const std::string& name_or_file,
                                    std::optional<std::uint64_t> version);

// IsKept: the envelope is the newest one of its version in the store, whether it was read there or
// from a file. False where there is no state, or its store cannot be read.
bool IsKept(Agent* agent, const EnvelopeSource& source, const envelope::SealedEnvelope& sealed);

// ReadDocument reads a file that is no envelope, under an envelope's limits; `what` ("checkpoint")
// says in an error what it should have been. Errors: kEnvelopeUnreadable, Failure::kLimit.
Result<Bytes> ReadDocument(const std::string& path, const std::string& what);

// LooksLikeFile tells whether a text means a file by its form alone.
bool LooksLikeFile(const std::string& text);

// TrustFor returns the agents whose signatures count: the agent's own and registered ones, and
// `thumbprint` where one was named. `agent` may be null.
Result<envelope::ReadOptions> TrustFor(Agent* agent, const std::string& thumbprint,
                                       bool accept_unknown_agent);

}  // namespace keyescrow::agent
