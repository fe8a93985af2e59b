// The parts of documents that several commands share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/render.h"
#include "agent/usecases/inventory.h"
#include "envelope/base/error.h"

namespace keyescrow::agent {

// KeyJson: {"name":…,"version":…}.
Json KeyJson(std::string_view name, std::uint32_t version);

// ErrorJson: as an error document's "error".
Json ErrorJson(const Error& error);

// TimeJson: the UTC time as text, or null.
Json TimeJson(const std::optional<std::int64_t>& unix_seconds);

// TextOrNull: "" is null.
Json TextOrNull(std::string_view text);

// PathViewJson and KeyViewJson: members that are not known are null.
Json PathViewJson(const PathView& path);
Json KeyViewJson(const KeyView& key);

// Count: "1 key", "2 keys".
std::string Count(std::size_t number, std::string_view thing);

// ListJson: an array of texts.
Json ListJson(const std::vector<std::string>& texts);

}  // namespace keyescrow::agent
