// The exit statuses of the command line.
#pragma once

#include <string_view>

#include "envelope/base/error.h"

namespace keyescrow::agent {

inline constexpr int kExitDone = 0;               // done; complies
inline constexpr int kExitFindings = 1;           // does not comply, not proven, not verified
inline constexpr int kExitUsage = 2;              // usage or configuration
inline constexpr int kExitWrongFactor = 3;        // wrong password, PIN or factor
inline constexpr int kExitDamaged = 4;            // damaged, tampered or not trusted
inline constexpr int kExitDeviceUnavailable = 5;  // no TPM, no token, module missing, timeout
inline constexpr int kExitLockedOut = 6;          // PIN locked, TPM lockout
inline constexpr int kExitRefused = 7;            // refused by policy
inline constexpr int kExitNotFound = 8;           // not found; also an uninitialised state
inline constexpr int kExitStoreUnavailable = 9;   // store or event log unavailable
inline constexpr int kExitWrongDevice = 10;       // another TPM or token
inline constexpr int kExitDestination = 11;       // destination not writable or full
inline constexpr int kExitOtherKey = 12;          // destination holds another key
inline constexpr int kExitBug = 70;               // bug

// ExitStatus returns the status for an error. An envelope's failure decides before the code:
// format, limit, signature and mac give 4; factor gives 3, 5, 6 or 10 by its cause's code; unwrap
// gives 3 where the envelope's signature was verified, else 4.
int ExitStatus(const Error& error, bool signature_verified = true);

// ExitMeaning returns the words for a status, "" for one that is not in the table.
std::string_view ExitMeaning(int status);

}  // namespace keyescrow::agent
