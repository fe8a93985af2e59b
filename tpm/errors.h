// TPM response codes as errors: one row a code (TPM 2.0 Part 2, 6.6). Pure data, no device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "envelope/base/error.h"
#include "envelope/factor.h"

namespace keyescrow::tpm {

// Context: what was being done, where one code means several things.
enum class Context : std::uint8_t {
  kAny,
  kOwner,      // an owner-authorised command: CreatePrimary, EvictControl
  kSrk,        // a command that uses the SRK's handle
  kPcrPolicy,  // PolicyPCR, PolicyAuthorize
  kAgentKey,   // the agent key's load and signatures
  kAnchor,     // the log's counter and its attestation key
  kPassword,   // the use of an object whose auth value comes of the password
};

struct ErrorRow {
  std::uint32_t code;  // with the format bits stripped
  Context context;     // kAny serves where no closer row exists
  ErrorCode error;
  Action action;
  std::string_view message;
  std::string_view hint;
};

std::span<const ErrorRow> ErrorTable();

// StripFormatBits drops which handle, session or parameter a format-1 code is about, and the layer
// of a resource manager that forwards it: 0x98e and 0xc098e give 0x8e.
std::uint32_t StripFormatBits(std::uint32_t response_code);

// ErrorFor finds the row; an unknown code gives kTpmFailure with its hex and kCallOperator.
// `command` is the name that Part 3 gives it, e.g. "TPM2_Unseal".
Error ErrorFor(std::uint32_t response_code, Context context, std::string_view command);

// ResponseError: a response that does not parse, or fails its integrity check. kTpmResponse.
Error ResponseError(std::string message);

// DaState: dictionary-attack protection, from one GetCapability.
struct DaState {
  bool in_lockout = false;
  bool lockout_auth_set = false;
  bool owner_auth_set = false;
  std::uint32_t counter = 0;
  std::uint32_t max_tries = 0;
  std::uint32_t interval_s = 0;  // 0: tries never come back by waiting
  std::uint32_t recovery_s = 0;
};

// Errors that name the numbers. `before` is the state read before the try.
Error WrongAuthError(const DaState& before, std::uint32_t response_code);
Error LockoutError(const DaState& state);
Error LastTryError(const DaState& state);

}  // namespace keyescrow::tpm
