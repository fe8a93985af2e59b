// cryptoki.h is the only include of PKCS#11's header (p11-kit's, 2.40; the library is not linked),
// and defines what PKCS#11 3.0 adds and we use.
#pragma once

#include <p11-kit/pkcs11.h>

// CK_INTERFACE and C_GetInterface. Source: PKCS#11 3.0, 5.4 (general-purpose functions). The
// function list of the interface "PKCS 11" 3.0 begins with the members of CK_FUNCTION_LIST 2.40.
struct CK_INTERFACE {
  CK_UTF8CHAR* pInterfaceName;
  void* pFunctionList;
  CK_FLAGS flags;
};
using CK_C_GetInterface = CK_RV (*)(CK_UTF8CHAR* interface_name, CK_VERSION* version,
                                    CK_INTERFACE** interface, CK_FLAGS flags);

inline constexpr CK_RV kCkrOperationCancelFailed = 0x202UL;  // CKR_OPERATION_CANCEL_FAILED, 3.0
