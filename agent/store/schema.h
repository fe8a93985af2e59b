// The schema's versions: schema/NNNN.sql takes a store from version NNNN - 1 to NNNN. The version
// is SQLite's user_version. A file that was released is never edited: a change is a new file.
#pragma once

namespace keyescrow::agent::store {

inline constexpr int kSchemaVersion = 13;

// kMigrations[i] is the text of the file numbered i + 1.
extern const char* const kMigrations[kSchemaVersion];

}  // namespace keyescrow::agent::store
