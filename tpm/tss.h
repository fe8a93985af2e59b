// The only include of tpm2-tss: the TCTI loader, opened at run time when a TPM is first used, so
// that the program is linked without tpm2-tss and starts where it is not installed.
#pragma once

#include <tss2/tss2_tcti.h>
#include <tss2/tss2_tctildr.h>

#include "envelope/base/result.h"

namespace keyescrow::tpm {

// TssLoader: the two functions of libtss2-tctildr.so.0 that are used.
struct TssLoader {
  decltype(&::Tss2_TctiLdr_Initialize) initialize = nullptr;
  decltype(&::Tss2_TctiLdr_Finalize) finalize = nullptr;
};

// LoadTss opens the library once a process, with tpm2-tss's own logging turned off (it prints bus
// traffic at its higher levels). Thread-safe. Errors: kTpmUnavailable, naming the Debian package.
Result<const TssLoader*> LoadTss();

// LoadTssFrom opens `library` each time it is called; LoadTss is this, once, for the real name.
Result<TssLoader> LoadTssFrom(const char* library);

}  // namespace keyescrow::tpm
