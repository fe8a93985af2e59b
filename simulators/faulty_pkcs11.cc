// faulty_pkcs11.so: a PKCS#11 module that forwards every function to the module named by
// FAULTY_PKCS11_MODULE and misbehaves by the rules in FAULTY_PKCS11_RULES:
//   FUNCTION@N=ACTION[,FUNCTION@N=ACTION]…      N-th call in this process, from 1; 0: every call
//   FUNCTION#N=ACTION                           N-th call of all processes that share the trace
//   ACTION: hang | crash | fork (crash, and leave a child behind for 30 s) | exit | rv:HEX |
//           stuck (hang, and do not die when killed until a file with the trace's name and .release
//           is there, for 60 s: what a driver that hangs in the kernel does)
//   delay:MILLISECONDS
//           gone:HEX (what this and every later call of any function returns)
//           flags:HEX (ORed into a token's flags) | noflags:HEX (cleared from them)
//           other (from here on each token has another serial number)
//           garbage (writes nonsense to descriptor 3) | close (it)
//           send:HEX (writes these bytes to it)
//           short (each output is a byte shorter) | long:BYTES (it says to be so much longer) |
//           fill (it is all ones): C_Decrypt, C_Sign and C_GetAttributeValue
//           pull | insert (the folder that FAULTY_PKCS11_TOKENS names, SoftHSM's, is renamed away
//           to NAME.pulled, and back)
// FAULTY_PKCS11_TRACE names a file to which each call's function is appended, a line each.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>

#include "hsm/cryptoki.h"

namespace {

CK_FUNCTION_LIST functions;
CK_FLAGS set_flags = 0;
CK_FLAGS cleared_flags = 0;
bool other_token = false;
CK_RV gone = CKR_OK;
CK_ULONG longer_by = 0;
std::string spoil;  // what becomes of this call's output; empty: nothing

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

// CallsInTrace counts this call too: it was traced first.
unsigned long CallsInTrace(std::string_view name) {
  const char* path = std::getenv("FAULTY_PKCS11_TRACE");
  if (path == nullptr) std::abort();
  std::ifstream file(path);
  unsigned long count = 0;
  for (std::string line; std::getline(file, line);) count += line == name ? 1 : 0;
  return count;
}

void MoveTokens(bool away) {
  const char* folder = std::getenv("FAULTY_PKCS11_TOKENS");
  if (folder == nullptr) std::abort();
  const std::string pulled = std::string(folder) + ".pulled";
  if (std::rename(away ? folder : pulled.c_str(), away ? pulled.c_str() : folder) != 0 &&
      errno != ENOENT) {
    std::abort();
  }
}

// StayAfterDeath has a child trace this process, which then stops on its way out. Where that is not
// allowed it only hangs.
void StayAfterDeath() {
  const char* trace = std::getenv("FAULTY_PKCS11_TRACE");
  if (trace == nullptr) std::abort();
  const std::string release = std::string(trace) + ".release";
  const pid_t worker = getpid();
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (fork() == 0) {
    close(3);
    ptrace(PTRACE_SEIZE, worker, nullptr, PTRACE_O_TRACEEXIT);
    for (int tenths = 0; tenths < 600 && access(release.c_str(), F_OK) != 0; ++tenths) {
      usleep(100'000);
    }
    _exit(0);
  }
}

// Act carries one action out; true if the call ends here with `rv`.
bool Act(std::string_view action, CK_RV& rv) {
  const std::string_view name = action.substr(0, action.find(':'));
  const std::string_view value =
      name.size() < action.size() ? action.substr(name.size() + 1) : std::string_view();
  if (name == "hang" || name == "stuck") {
    if (name == "stuck") StayAfterDeath();
    while (true) pause();
  } else if (name == "crash") {
    raise(SIGSEGV);
  } else if (name == "fork") {
    if (fork() == 0) {
      sleep(30);
      _exit(0);
    }
    raise(SIGSEGV);
  } else if (name == "exit") {
    _exit(7);
  } else if (name == "delay") {
    usleep(static_cast<useconds_t>(Number(value, 10) * 1000));
  } else if (name == "garbage") {
    std::string nonsense(200, '\xff');
    if (write(3, nonsense.data(), nonsense.size()) < 0) std::abort();
  } else if (name == "send") {
    std::string bytes;
    for (std::size_t at = 0; at + 1 < value.size(); at += 2) {
      bytes += static_cast<char>(Number(value.substr(at, 2), 16));
    }
    if (write(3, bytes.data(), bytes.size()) < 0) std::abort();
  } else if (name == "close") {
    close(3);
    while (true) pause();
  } else if (name == "flags") {
    set_flags = Number(value, 16);
  } else if (name == "noflags") {
    cleared_flags = Number(value, 16);
  } else if (name == "other") {
    other_token = true;
  } else if (name == "short" || name == "fill" || name == "long") {
    spoil = name;
    longer_by = Number(value, 10);
  } else if (name == "pull" || name == "insert") {
    MoveTokens(name == "pull");
  } else if (name == "rv" || name == "gone") {
    rv = Number(value, 16);
    if (name == "gone") gone = rv;
    return true;
  } else {
    std::abort();
  }
  return false;
}

bool Intercept(std::string_view function, unsigned long call, CK_RV& rv) {
  Trace(function);
  spoil.clear();
  if (gone != CKR_OK) {
    rv = gone;
    return true;
  }
  const char* environment = std::getenv("FAULTY_PKCS11_RULES");
  std::string_view rules = environment != nullptr ? environment : "";
  while (!rules.empty()) {
    const std::string_view rule = rules.substr(0, rules.find(','));
    rules.remove_prefix(rule.size() < rules.size() ? rule.size() + 1 : rules.size());
    const std::size_t at = rule.find_first_of("@#");
    const std::size_t equals = rule.find('=');
    if (at == std::string_view::npos || equals == std::string_view::npos) std::abort();
    const unsigned long wanted = Number(rule.substr(at + 1, equals - at - 1), 10);
    if (rule.substr(0, at) != function) continue;
    if (wanted != 0 && wanted != (rule[at] == '#' ? CallsInTrace(function) : call)) continue;
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

void Spoil(void* output, CK_ULONG& size) {
  if (output == nullptr || size == CK_UNAVAILABLE_INFORMATION || size == 0) return;
  if (spoil == "short") --size;
  if (spoil == "long") size += longer_by;
  if (spoil == "fill") std::memset(output, 0xff, size);
}

using Operation = CK_RV (*)(CK_SESSION_HANDLE, CK_BYTE*, CK_ULONG, CK_BYTE*, CK_ULONG*);
Operation real_decrypt = nullptr;
Operation real_sign = nullptr;
constexpr char kDecryptName[] = "C_Decrypt";
constexpr char kSignName[] = "C_Sign";

template <Operation* real, const char* name>
CK_RV SpoiledOutput(CK_SESSION_HANDLE session, CK_BYTE* input, CK_ULONG input_size, CK_BYTE* output,
                    CK_ULONG* output_size) {
  static unsigned long num_calls = 0;
  CK_RV rv = CKR_OK;
  if (Intercept(name, ++num_calls, rv)) return rv;
  rv = (*real)(session, input, input_size, output, output_size);
  if (rv == CKR_OK) Spoil(output, *output_size);
  return rv;
}

CK_RV(*real_get_attribute_value)
(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE*, CK_ULONG) = nullptr;

CK_RV SpoiledAttributes(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE* wanted,
                        CK_ULONG count) {
  static unsigned long num_calls = 0;
  CK_RV rv = CKR_OK;
  if (Intercept("C_GetAttributeValue", ++num_calls, rv)) return rv;
  rv = real_get_attribute_value(session, object, wanted, count);
  for (CK_ULONG index = 0; rv == CKR_OK && index < count; ++index) {
    Spoil(wanted[index].pValue, wanted[index].ulValueLen);
  }
  return rv;
}

CK_RV (*real_get_token_info)(CK_SLOT_ID, CK_TOKEN_INFO*) = nullptr;

CK_RV AmendedTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO* info) {
  static unsigned long num_calls = 0;
  CK_RV rv = CKR_OK;
  if (Intercept("C_GetTokenInfo", ++num_calls, rv)) return rv;
  rv = real_get_token_info(slot, info);
  if (rv != CKR_OK) return rv;
  info->flags = (info->flags | set_flags) & ~cleared_flags;
  if (other_token) info->serialNumber[0] = info->serialNumber[0] == '#' ? '$' : '#';
  return CKR_OK;
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
  WRAP(C_DecryptInit)
  WRAP(C_DeriveKey)
  WRAP(C_SignInit)
  WRAP(C_DestroyObject)
  WRAP(C_GenerateKeyPair)
#undef WRAP
  real_get_token_info = real->C_GetTokenInfo;
  functions.C_GetTokenInfo = &AmendedTokenInfo;
  real_decrypt = real->C_Decrypt;
  functions.C_Decrypt = &SpoiledOutput<&real_decrypt, kDecryptName>;
  real_sign = real->C_Sign;
  functions.C_Sign = &SpoiledOutput<&real_sign, kSignName>;
  real_get_attribute_value = real->C_GetAttributeValue;
  functions.C_GetAttributeValue = &SpoiledAttributes;
  return true;
}

}  // namespace

extern "C" CK_RV C_GetFunctionList(CK_FUNCTION_LIST** list) {
  if (!LoadReal()) return CKR_GENERAL_ERROR;
  *list = &functions;
  return CKR_OK;
}
