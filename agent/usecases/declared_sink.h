// Where a key goes that no SINK was named for.
#pragma once

#include <string>

#include "agent/config/config.h"
#include "agent/key_locations/key_location.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// DeclaredSink is where the key is declared. `options` are those that name another place: "--to
// SINK". Errors: kUsage where the declared source gives a key and takes none: a command, whose
// output would be the key, or standard input.
Result<std::string> DeclaredSink(const DeclaredKey& declared, const std::string& options);

// TakesKeys: whether a declared source is a place that a key can be written to.
bool TakesKeys(const std::string& source);

// CheckOutsideState refuses to write a key among the agent's own files: with --replace it would
// take the place of the store, which is the only copy of every envelope. Errors: kUsage.
Status CheckOutsideState(const KeyLocation& location, const std::string& state_dir);

}  // namespace keyescrow::agent
