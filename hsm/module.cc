#include "hsm/module.h"

#include <dlfcn.h>
#include <unistd.h>

namespace keyescrow::hsm {
namespace {

// The functions that the worker calls without asking again whether they are there.
bool IsComplete(const CK_FUNCTION_LIST* f) {
  return f->C_Initialize != nullptr && f->C_GetInfo != nullptr && f->C_GetSlotList != nullptr &&
         f->C_GetTokenInfo != nullptr && f->C_OpenSession != nullptr &&
         f->C_CloseSession != nullptr && f->C_Login != nullptr && f->C_Logout != nullptr &&
         f->C_FindObjectsInit != nullptr && f->C_FindObjects != nullptr &&
         f->C_FindObjectsFinal != nullptr && f->C_GetAttributeValue != nullptr &&
         f->C_DecryptInit != nullptr && f->C_Decrypt != nullptr && f->C_DeriveKey != nullptr &&
         f->C_DestroyObject != nullptr && f->C_GetMechanismList != nullptr &&
         f->C_GenerateKeyPair != nullptr;
}

CK_FUNCTION_LIST* FunctionsOf(void* library) {
  if (const auto get_interface =
          reinterpret_cast<CK_C_GetInterface>(dlsym(library, "C_GetInterface"));
      get_interface != nullptr) {
    CK_UTF8CHAR name[] = "PKCS 11";
    CK_VERSION version{3, 0};
    CK_INTERFACE* interface = nullptr;
    if (get_interface(name, &version, &interface, 0) == CKR_OK && interface != nullptr &&
        interface->pFunctionList != nullptr) {
      return static_cast<CK_FUNCTION_LIST*>(interface->pFunctionList);
    }
  }
  const auto get_list = reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
  CK_FUNCTION_LIST* functions = nullptr;
  if (get_list == nullptr || get_list(&functions) != CKR_OK) return nullptr;
  return functions;
}

}  // namespace

LoadOutcome Module::Load(const std::string& path, const std::string& arguments) {
  const bool is_path = path.find('/') != std::string::npos;
  if (path.empty() || (is_path && access(path.c_str(), F_OK) != 0)) return LoadOutcome::kMissing;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    reason_ = reason != nullptr ? reason : "dlopen failed";
    // A bare name that is nowhere on the search path; a missing dependency names another file.
    const bool missing = !is_path && reason_.starts_with(path + ": cannot open");
    return missing ? LoadOutcome::kMissing : LoadOutcome::kInvalid;
  }
  CK_FUNCTION_LIST* functions = FunctionsOf(library);
  if (functions == nullptr || !IsComplete(functions)) {
    reason_ = functions == nullptr ? "it offers neither C_GetInterface nor C_GetFunctionList"
                                   : "its function list is not complete";
    return LoadOutcome::kInvalid;
  }
  std::string reserved = arguments;  // NOLINT(performance-unnecessary-copy-initialization): written
  CK_C_INITIALIZE_ARGS args{};
  args.flags = CKF_OS_LOCKING_OK;
  args.pReserved = arguments.empty() ? nullptr : reserved.data();
  initialize_rv_ = functions->C_Initialize(&args);
  if (initialize_rv_ == CKR_CANT_LOCK) {  // the worker has one thread
    args.flags = 0;
    initialize_rv_ = functions->C_Initialize(arguments.empty() ? nullptr : &args);
  }
  if (initialize_rv_ != CKR_OK && initialize_rv_ != CKR_CRYPTOKI_ALREADY_INITIALIZED) {
    return LoadOutcome::kInitializeFailed;
  }
  functions_ = functions;
  return LoadOutcome::kLoaded;
}

}  // namespace keyescrow::hsm
