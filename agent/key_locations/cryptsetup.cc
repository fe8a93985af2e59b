#include "agent/key_locations/cryptsetup.h"

#include <dlfcn.h>

#include <string>

namespace keyescrow::agent {
namespace {

constexpr char kLibrary[] = "libcryptsetup.so.12";

Error Unavailable(const std::string& reason) {
  return Error(ErrorCode::kUnsupportedHere, Action::kCheckSystemState,
               "cannot load libcryptsetup, which opens LUKS volumes: " + reason,
               "install it with 'apt install libcryptsetup12'");
}

// Library looks functions up, and remembers the first that is missing.
class Library {
 public:
  explicit Library(void* opened) : opened_(opened) {}

  template <typename Function>
  void Find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(opened_, name));
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* opened_;
  std::string missing_;
};

Result<Cryptsetup> Load() {
  void* opened = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* reason = dlerror();
    return Unavailable(reason != nullptr ? reason : kLibrary);
  }
  Library library(opened);
  Cryptsetup found;
  library.Find(found.init, "crypt_init");
  library.Find(found.free, "crypt_free");
  library.Find(found.load, "crypt_load");
  library.Find(found.set_log_callback, "crypt_set_log_callback");
  library.Find(found.set_pbkdf_type, "crypt_set_pbkdf_type");
  library.Find(found.get_volume_key_size, "crypt_get_volume_key_size");
  library.Find(found.volume_key_get, "crypt_volume_key_get");
  library.Find(found.volume_key_verify, "crypt_volume_key_verify");
  library.Find(found.keyslot_add_by_volume_key, "crypt_keyslot_add_by_volume_key");
  library.Find(found.activate_by_passphrase, "crypt_activate_by_passphrase");
  library.Find(found.keyslot_destroy, "crypt_keyslot_destroy");
  if (!library.missing().empty()) {
    return Unavailable(std::string(kLibrary) + " has no function " + library.missing());
  }
  // Plug-ins for tokens are foreign code, and nothing here opens a volume by a token. Libraries
  // from before 2.4 have neither.
  decltype(&crypt_token_external_disable) disable_plug_ins = nullptr;
  library.Find(disable_plug_ins, "crypt_token_external_disable");
  if (disable_plug_ins != nullptr) disable_plug_ins();
  return found;
}

}  // namespace

Result<const Cryptsetup*> LoadCryptsetup() {
  static const Result<Cryptsetup> loaded = Load();
  if (!loaded) return loaded.error();
  return &*loaded;
}

}  // namespace keyescrow::agent
