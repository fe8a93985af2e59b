// The one place that sees toml++; inside this folder alone.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config/config.h"

namespace keyescrow::agent {

// BlockLines: where a [[key]] stands, for textual edits.
struct BlockLines {
  std::uint32_t first = 0;  // its [[key]], from 1
  std::uint32_t last = 0;   // the last line of its last value
  bool is_inline = false;   // written as `key = [{…}]`
};

struct ParsedConfig {
  AgentConfig config;
  std::vector<BlockLines> blocks;  // one a key, in config.keys' order
};

// ParseToml parses and checks the whole file. Errors: kConfiguration with line and column.
Result<ParsedConfig> ParseToml(std::string_view text, const std::string& file);

}  // namespace keyescrow::agent
