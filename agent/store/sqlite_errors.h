// SQLite's result codes as errors: one row a code.
#pragma once

#include <string_view>

#include "envelope/base/error.h"

namespace keyescrow::agent::store {

// SqliteError translates an extended result code; `system_errno` is sqlite3_system_errno's or 0,
// `message` is SQLite's own text. The code is kept as native domain "SQLITE".
Error SqliteError(int extended_code, int system_errno, std::string_view message);

}  // namespace keyescrow::agent::store
