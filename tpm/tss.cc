#include "tpm/tss.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace keyescrow::tpm {
namespace {

constexpr char kLibrary[] = "libtss2-tctildr.so.0";

Error Unavailable(std::string_view reason) {
  return Error(ErrorCode::kTpmUnavailable, Action::kCheckSystemState,
               "cannot load the TPM library: " + std::string(reason),
               "install it with 'apt install libtss2-tctildr0 libtss2-tcti-device0', or use a path "
               "without tpm");
}

}  // namespace

Result<TssLoader> LoadTssFrom(const char* library) {
  // Overwritten, not defaulted: at "trace" the library prints every command to stderr.
  setenv("TSS2_LOG", "all+none", 1);
  void* opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* reason = dlerror();
    return Unavailable(reason != nullptr ? reason : library);
  }
  TssLoader loader;
  loader.initialize =
      reinterpret_cast<decltype(loader.initialize)>(dlsym(opened, "Tss2_TctiLdr_Initialize"));
  loader.finalize =
      reinterpret_cast<decltype(loader.finalize)>(dlsym(opened, "Tss2_TctiLdr_Finalize"));
  if (loader.initialize == nullptr || loader.finalize == nullptr) {
    return Unavailable(std::string(library) + " lacks the TCTI loader's functions");
  }
  return loader;
}

Result<const TssLoader*> LoadTss() {
  static const Result<TssLoader> loaded = LoadTssFrom(kLibrary);
  if (!loaded) return loaded.error();
  return &*loaded;
}

}  // namespace keyescrow::tpm
