// RecoveryKeyFailure: the last drill of a registered recovery key did not open it, for what lies in
// the key itself (TellsOfThePath). Every path that carries its record is broken then, until a drill
// opens it; a new record under the name begins anew.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "agent/store/escrow_store.h"
#include "envelope/base/base64url.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct RecoveryKeyFailure {
  std::int64_t time = 0;  // Unix seconds
  std::string code;       // an error code's name
};

// RecoveryKeyFailureSetting keeps it: "TIME CODE RECORD", RECORD being b64u of the record's
// SHA-256.
inline std::string RecoveryKeyFailureSetting(std::string_view name) {
  return fmt::format("recovery_key_failed:{}", name);
}

inline store::Setting FailedSetting(const store::RecoveryKeyRecord& row,
                                    const RecoveryKeyFailure& failure) {
  return {RecoveryKeyFailureSetting(row.name),
          fmt::format("{} {} {}", failure.time, failure.code, EncodeBase64Url(row.sha256))};
}

// ParseFailure reads the setting's value; nothing where it is of another record than `row`'s.
inline std::optional<RecoveryKeyFailure> ParseFailure(std::string_view text,
                                                      const store::RecoveryKeyRecord& row) {
  const std::size_t code = text.find(' ');
  const std::size_t record = text.rfind(' ');
  RecoveryKeyFailure failure;
  if (record == code || text.substr(record + 1) != EncodeBase64Url(row.sha256)) {
    return std::nullopt;
  }
  std::from_chars(text.data(), text.data() + code, failure.time);
  failure.code = text.substr(code + 1, record - code - 1);
  return failure;
}

// FindFailure returns the failure of the record that is registered now; nothing where there is
// none.
inline Result<std::optional<RecoveryKeyFailure>> FindFailure(store::EscrowStore& store,
                                                             const store::RecoveryKeyRecord& row) {
  ASSIGN_OR_RETURN(const auto kept, store.GetSetting(RecoveryKeyFailureSetting(row.name)));
  return kept ? ParseFailure(*kept, row) : std::nullopt;
}

}  // namespace keyescrow::agent
