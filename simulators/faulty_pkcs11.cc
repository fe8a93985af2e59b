// faulty_pkcs11.so: a PKCS#11 module that forwards every function to the module named by
// FAULTY_PKCS11_MODULE and misbehaves by the rules in FAULTY_PKCS11_RULES:
//   FUNCTION@N=ACTION[,FUNCTION@N=ACTION]…      N-th call in this process, from 1; 0: every call
//   ACTION: hang | crash | exit | rv:HEX | delay:MILLISECONDS | flags:HEX (ORed into a token's
//   flags)
//           noflags:HEX (cleared from them) | garbage (writes nonsense to descriptor 3) | close
//           (it)
// FAULTY_PKCS11_TRACE names a file to which each call's function is appended, a line each.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "hsm/cryptoki.h"

namespace {

CK_FUNCTION_LIST functions;
CK_FLAGS set_flags = 0;
CK_FLAGS cleared_flags = 0;

void Trace(std::string_view name) {
  const char* path = std::getenv("FAULTY_PKCS11_TRACE");
  if (path == nullptr) return;
  const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string line = std::string(name) + "\n";
  if (write(fd, line.data(), line.size()) < 0) std::abort();
  close(fd);
}

unsigned long Number(std::string_view text, int base) {
  return std::strtoul(std::string(text).c_str(), nullptr, base);
}

// Act carries one action out; true if the call ends here with `rv`.
bool Act(std::string_view action, CK_RV& rv) {
  const std::string_view name = action.substr(0, action.find(':'));
  const std::string_view value =
      name.size() < action.size() ? action.substr(name.size() + 1) : std::string_view();
  if (name == "hang") {
    while (true) pause();
  } else if (name == "crash") {
    raise(SIGSEGV);
  } else if (name == "exit") {
    _exit(7);
  } else if (name == "delay") {
    usleep(static_cast<useconds_t>(Number(value, 10) * 1000));
  } else if (name == "garbage") {
    std::string nonsense(200, '\xff');
    if (write(3, nonsense.data(), nonsense.size()) < 0) std::abort();
  } else if (name == "close") {
    close(3);
    while (true) pause();
  } else if (name == "flags") {
    set_flags = Number(value, 16);
  } else if (name == "noflags") {
    cleared_flags = Number(value, 16);
  } else if (name == "rv") {
    rv = Number(value, 16);
    return true;
  } else {
    std::abort();
  }
  return false;
}

bool Intercept(std::string_view function, unsigned long call, CK_RV& rv) {
  Trace(function);
  const char* environment = std::getenv("FAULTY_PKCS11_RULES");
  std::string_view rules = environment != nullptr ? environment : "";
  while (!rules.empty()) {
    const std::string_view rule = rules.substr(0, rules.find(','));
    rules.remove_prefix(rule.size() < rules.size() ? rule.size() + 1 : rules.size());
    const std::size_t at = rule.find('@');
    const std::size_t equals = rule.find('=');
    if (at == std::string_view::npos || equals == std::string_view::npos) std::abort();
    const unsigned long wanted = Number(rule.substr(at + 1, equals - at - 1), 10);
    if (rule.substr(0, at) != function || (wanted != 0 && wanted != call)) continue;
    if (Act(rule.substr(equals + 1), rv)) return true;
  }
  return false;
}

// Forward<k, F> is the k-th wrapped function, of type F.
template <int kIndex, typename F>
struct Forward;
template <int kIndex, typename... Arguments>
struct Forward<kIndex, CK_RV (*)(Arguments...)> {
  static inline CK_RV (*real)(Arguments...) = nullptr;
  static inline const char* name = nullptr;
  static inline unsigned long num_calls = 0;
  static CK_RV Call(Arguments... arguments) {
    CK_RV rv = CKR_OK;
    if (Intercept(name, ++num_calls, rv)) return rv;
    return real(arguments...);
  }
};

CK_RV (*real_get_token_info)(CK_SLOT_ID, CK_TOKEN_INFO*) = nullptr;

CK_RV AmendedTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO* info) {
  static unsigned long num_calls = 0;
  CK_RV rv = CKR_OK;
  if (Intercept("C_GetTokenInfo", ++num_calls, rv)) return rv;
  rv = real_get_token_info(slot, info);
  if (rv == CKR_OK) info->flags = (info->flags | set_flags) & ~cleared_flags;
  return rv;
}

bool LoadReal() {
  const char* path = std::getenv("FAULTY_PKCS11_MODULE");
  void* library = path != nullptr ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (library == nullptr) return false;
  const auto get_list = reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
  CK_FUNCTION_LIST* real = nullptr;
  if (get_list == nullptr || get_list(&real) != CKR_OK) return false;
  functions = *real;
#define WRAP(function)                                              \
  {                                                                 \
    using Wrapper = Forward<__COUNTER__, decltype(real->function)>; \
    Wrapper::real = real->function;                                 \
    Wrapper::name = #function;                                      \
    functions.function = &Wrapper::Call;                            \
  }
  WRAP(C_Initialize)
  WRAP(C_Finalize)
  WRAP(C_GetInfo)
  WRAP(C_GetSlotList)
  WRAP(C_GetMechanismList)
  WRAP(C_OpenSession)
  WRAP(C_CloseSession)
  WRAP(C_Login)
  WRAP(C_Logout)
  WRAP(C_FindObjectsInit)
  WRAP(C_FindObjects)
  WRAP(C_FindObjectsFinal)
  WRAP(C_GetAttributeValue)
  WRAP(C_DecryptInit)
  WRAP(C_Decrypt)
  WRAP(C_DeriveKey)
  WRAP(C_DestroyObject)
  WRAP(C_GenerateKeyPair)
#undef WRAP
  real_get_token_info = real->C_GetTokenInfo;
  functions.C_GetTokenInfo = &AmendedTokenInfo;
  return true;
}

}  // namespace

extern "C" CK_RV C_GetFunctionList(CK_FUNCTION_LIST** list) {
  if (!LoadReal()) return CKR_GENERAL_ERROR;
  *list = &functions;
  return CKR_OK;
}
