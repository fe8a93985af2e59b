// JSON of other tools, read strictly: bounded in depth, no member twice.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// ForeignError is what is wrong with a foreign escrow: kSourceUnreadable.
Error ForeignError(std::string what);

// ParseForeignObject reads one JSON object. Errors: ForeignError.
Result<nlohmann::json> ParseForeignObject(std::string_view text);

// Member and Text give null where the member is missing or of another type.
const nlohmann::json* Member(const nlohmann::json& object, const char* name);
const std::string* Text(const nlohmann::json& object, const char* name);

}  // namespace keyescrow::agent
