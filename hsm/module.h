// Module: a vendor's PKCS#11 library, loaded into this process. Only the worker loads one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "hsm/cryptoki.h"

namespace keyescrow::hsm {

enum class LoadOutcome : std::uint8_t { kLoaded, kMissing, kInvalid, kInitializeFailed };

class Module {
 public:
  // Load maps `path` (dlopen: RTLD_NOW | RTLD_LOCAL; never unmapped, since vendors' threads may
  // outlive C_Finalize), takes the interface "PKCS 11" 3.0 where there is one, else
  // C_GetFunctionList, and initialises it. `arguments` becomes pReserved, null where empty.
  // Source: PKCS#11 3.0, 5.4, C_GetInterface, C_GetFunctionList, C_Initialize.
  LoadOutcome Load(const std::string& path, const std::string& arguments);

  // After kInitializeFailed: what C_Initialize answered. After kInvalid: why.
  CK_RV initialize_rv() const { return initialize_rv_; }
  const std::string& reason() const { return reason_; }

  bool loaded() const { return functions_ != nullptr; }
  CK_FUNCTION_LIST* operator->() const { return functions_; }

 private:
  CK_FUNCTION_LIST* functions_ = nullptr;
  CK_RV initialize_rv_ = CKR_OK;
  std::string reason_;
};

}  // namespace keyescrow::hsm
