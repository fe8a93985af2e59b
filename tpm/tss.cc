#include "tpm/tss.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

namespace keyescrow::tpm {
namespace {

constexpr char kLibrary[] = "libtss2-tctildr.so.0";

struct Loaded {
  TssLoader functions;
  std::string failure;  // empty: loaded
};

Loaded Load() {
  // Overwritten, not defaulted: at "trace" the library prints every command to stderr.
  setenv("TSS2_LOG", "all+none", 1);
  Loaded loaded;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    loaded.failure = reason != nullptr ? reason : kLibrary;
    return loaded;
  }
  loaded.functions.initialize = reinterpret_cast<decltype(loaded.functions.initialize)>(
      dlsym(library, "Tss2_TctiLdr_Initialize"));
  loaded.functions.finalize = reinterpret_cast<decltype(loaded.functions.finalize)>(
      dlsym(library, "Tss2_TctiLdr_Finalize"));
  if (loaded.functions.initialize == nullptr || loaded.functions.finalize == nullptr) {
    loaded.failure = std::string(kLibrary) + " lacks the TCTI loader's functions";
  }
  return loaded;
}

}  // namespace

Result<const TssLoader*> LoadTss() {
  static const Loaded loaded = Load();
  if (!loaded.failure.empty()) {
    return Error(ErrorCode::kTpmUnavailable, Action::kCheckSystemState,
                 "cannot load the TPM library: " + loaded.failure,
                 "install it with 'apt install libtss2-tctildr0 libtss2-tcti-device0', or restore "
                 "by a path without tpm");
  }
  return &loaded.functions;
}

}  // namespace keyescrow::tpm
