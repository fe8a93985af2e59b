#include "envelope/path_keys.h"

#include <algorithm>
#include <string>

#include "envelope/base/hash.h"

namespace keyescrow::envelope {
namespace {

constexpr char kDamagedHint[] = "use another path; this one was damaged before it was signed";

}  // namespace

Result<PathKeys> DerivePathKeys(std::span<const SecretBytes* const> secrets,
                                std::string_view binding, const std::vector<FactorRecord>& factors,
                                std::string_view path_id) {
  if (secrets.size() != factors.size() ||
      std::any_of(secrets.begin(), secrets.end(),
                  [](const SecretBytes* secret) { return secret->size() != 32; })) {
    return Error(ErrorCode::kFactorBad, Action::kWrongDevice,
                 "a factor of the path " + std::string(path_id) +
                     " gave something other than 32 bytes",
                 "use another path")
        .WithFailure(Failure::kFactor);
  }
  ASSIGN_OR_RETURN(const SecretBytes input, Concatenate(secrets));
  const std::string label = "keyescrow1|path|" + std::string(binding) + "|" + FactorTypes(factors);
  ASSIGN_OR_RETURN(const SecretBytes output, HkdfSha512(input, label, 96));
  PathKeys keys;
  ASSIGN_OR_RETURN(keys.wrapping_key, SecretBytes::CopyOf(output.Expose().first(64)));
  ASSIGN_OR_RETURN(keys.drill_seed, SecretBytes::CopyOf(output.Expose().subspan(64)));
  return keys;
}

Error UnwrapError(const std::vector<FactorRecord>& factors, std::string_view path_id) {
  for (const FactorRecord& factor : factors) {
    if (std::holds_alternative<PasswordRecord>(factor)) {
      return Error(ErrorCode::kWrongPassword, Action::kReauthenticate,
                   "the password does not open the path " + std::string(path_id),
                   "type the password that this path was made with; nothing was changed")
          .WithFailure(Failure::kUnwrap);
    }
  }
  const bool has_shares = std::ranges::any_of(factors, [](const FactorRecord& factor) {
    return std::holds_alternative<SharesRecord>(factor);
  });
  return Error(ErrorCode::kEnvelopeUnwrap, Action::kWrongDevice,
               "what the factors gave does not open the path " + std::string(path_id),
               has_shares
                   ? "try it with other officers, since one share may be bad, or use another "
                     "path; this one was damaged before it was signed"
                   : kDamagedHint)
      .WithFailure(Failure::kUnwrap);
}

Error DamagedPathError(std::string_view path_id) {
  return Error(ErrorCode::kEnvelopeUnwrap, Action::kWrongDevice,
               "the factors are right, and what is sealed under the path " + std::string(path_id) +
                   " does not open",
               kDamagedHint)
      .WithFailure(Failure::kUnwrap);
}

}  // namespace keyescrow::envelope
