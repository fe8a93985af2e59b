// WithStrayRows: rows that belong to none of another table, so that what comes next cannot be
// written.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "agent/store/sqlite_connection.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::store {

// WithStrayRows adds to `told` the first one of each kind: of an envelope of a number above all
// that are there (one that is missing among them is told by its entry), and of a policy.
inline Result<std::vector<std::string>> WithStrayRows(Connection& connection, int schema_version,
                                                      std::vector<std::string> told) {
  struct Kind {
    int since;  // schema
    const char* query;
    std::string_view before;
    std::string_view after;
  };
  static constexpr Kind kKinds[] = {
      {4, "SELECT serial FROM policy_file WHERE serial NOT IN (SELECT serial FROM policy) LIMIT 1",
       "policy_file has a row for a policy ", ", which is not there: that policy cannot be set"},
      {8,
       "SELECT n FROM (SELECT max(envelope_row) AS n FROM path_set) WHERE n > (SELECT "
       "coalesce(max(id), 0) FROM envelope)",
       "path_set has a row for an envelope ",
       ", which is not there: the next backup cannot be written"},
  };
  for (const Kind& kind : kKinds) {
    if (schema_version < kind.since) continue;
    Statement row = connection.Prepare(kind.query);
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (found) told.push_back(fmt::format("{}{}{}", kind.before, row.Integer(0), kind.after));
  }
  return told;
}

}  // namespace keyescrow::agent::store
