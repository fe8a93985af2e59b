// what-if: which keys survive given losses, which given thefts open, and which are one step from
// it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/verified_pack.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent {

struct WhatIfRequest {
  std::vector<std::string> lost;    // atoms: "token:ops", "host:db1" …
  std::vector<std::string> stolen;  // at least one of the two has one
  std::string key_name;             // "": every key
  std::optional<PackSource> pack;   // instead of the state
};

// WhatIfKey: what is left of one version of one key.
struct WhatIfKey {
  std::string name;
  std::uint32_t version = 0;
  std::string host;
  bool concerned = false;               // one of the atoms means something to it
  bool lost = false;                    // no path is left
  bool opened = false;                  // the thief has a whole path
  std::vector<std::string> paths_left;  // ids
  std::vector<std::string> paths_opened;
  std::size_t losses_left = 0;  // how many more lose it; 0: it is lost
  std::size_t thefts_left = 0;  // how many more open it; 0: it is open
  std::string not_analysed;     // why the rest is not known, or ""
};

struct WhatIfReport {
  std::vector<WhatIfKey> keys;
  std::string store_host;  // whose store or pack this is
  // The store's own host is among the lost: what is kept there alone is lost with it.
  bool store_lost = false;
  // Versions that were escrowed from a host which is stolen alive: the key is in use there.
  std::size_t num_in_use_on_stolen_host = 0;
  // What other tools escrowed, and no loss or theft was reckoned for: of a whole state alone.
  std::size_t num_foreign = 0;
};

// WhatIf reads the headers as the store has them, or what a verified pack says of them, newest
// revision of every version: the same answer. Nothing is opened. `agent` may be null with a pack.
// Errors: kInvalidPath; kNotFound for what no key knows, with the nearest word that one does, and
// where nothing is escrowed; kKeyNotFound; kStore*; those of an envelope that does not read;
// OpenVerifiedPack's.
Result<WhatIfReport> WhatIf(Agent* agent, const WhatIfRequest& request);

}  // namespace keyescrow::agent
