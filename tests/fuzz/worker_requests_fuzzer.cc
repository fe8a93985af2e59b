// The worker's end: requests that do not parse or come out of turn, and a module whose answers are
// not what they should be. The worker answers each request once, within the protocol's sizes. (A
// module that writes where it may not is beyond help, and the reason for the worker.)
#include <dlfcn.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csetjmp>
#include <cstring>

#include "hsm/cryptoki.h"
#include "hsm/token_protocol.h"
#include "hsm/token_worker.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 16384, .memory_mib = 32, .cpu_s = 2};

namespace {

int worker_socket = -1;
bool in_worker = false;
std::jmp_buf leave;
Input* requests = nullptr;
Input* module_answers = nullptr;
int num_unanswered = 0;
int num_found = 0;
CK_FUNCTION_LIST functions;

// Rv is mostly CKR_OK; what follows in the input is the module's to say.
CK_RV Rv() {
  const std::uint8_t kind = module_answers->U8();
  if (kind < 0xf0) return CKR_OK;
  constexpr CK_RV kCodes[] = {CKR_MECHANISM_INVALID, CKR_USER_NOT_LOGGED_IN,
                              CKR_FUNCTION_FAILED,   CKR_PIN_INCORRECT,
                              CKR_DEVICE_REMOVED,    CKR_BUFFER_TOO_SMALL,
                              CKR_CANT_LOCK,         CKR_ATTRIBUTE_TYPE_INVALID};
  return (kind & 8) != 0 ? module_answers->U64() : kCodes[kind & 7];
}

// Size is one that the module claims, often beyond what it was given.
CK_ULONG Size(CK_ULONG room) {
  const std::uint8_t kind = module_answers->U8();
  if (kind == 0xff) return module_answers->U64();
  return kind < 0x80 ? std::min<CK_ULONG>(kind, room) : room + (kind & 3);
}

void Write(void* to, CK_ULONG room) {
  const ByteView bytes = module_answers->Take(room);
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
}

void SetFunctions() {
  functions.C_Initialize = [](void*) { return Rv(); };
  functions.C_GetInfo = [](CK_INFO* info) {
    Write(info, sizeof *info);
    return Rv();
  };
  functions.C_GetSlotList = [](unsigned char, CK_SLOT_ID* slots, CK_ULONG* count) {
    Write(slots, std::min<CK_ULONG>(*count, 4) * sizeof *slots);
    *count = Size(*count);
    return Rv();
  };
  functions.C_GetTokenInfo = [](CK_SLOT_ID, CK_TOKEN_INFO* info) {
    Write(info, sizeof *info);
    return Rv();
  };
  functions.C_OpenSession = [](CK_SLOT_ID, CK_FLAGS, void*, CK_NOTIFY, CK_SESSION_HANDLE*) {
    return Rv();
  };
  functions.C_CloseSession = [](CK_SESSION_HANDLE) { return Rv(); };
  functions.C_Logout = [](CK_SESSION_HANDLE) { return Rv(); };
  functions.C_Login = [](CK_SESSION_HANDLE, CK_USER_TYPE, unsigned char* pin, CK_ULONG size) {
    FUZZ_CHECK((pin == nullptr) == (size == 0) || size == 0);
    FUZZ_CHECK(size <= hsm::kMaxPinBytes);
    return Rv();
  };
  functions.C_FindObjectsInit = [](CK_SESSION_HANDLE, CK_ATTRIBUTE*, CK_ULONG) { return Rv(); };
  functions.C_FindObjects = [](CK_SESSION_HANDLE, CK_OBJECT_HANDLE*, CK_ULONG room,
                               CK_ULONG* count) {
    FUZZ_CHECK(++num_found < 100000);
    *count = Size(room);
    return Rv();
  };
  functions.C_FindObjectsFinal = [](CK_SESSION_HANDLE) { return Rv(); };
  functions.C_GetAttributeValue = [](CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE* attributes,
                                     CK_ULONG count) {
    for (CK_ULONG index = 0; index < count; ++index) {
      Write(attributes[index].pValue, std::min<CK_ULONG>(attributes[index].ulValueLen, 8));
      attributes[index].ulValueLen = Size(attributes[index].ulValueLen);
    }
    return Rv();
  };
  functions.C_DecryptInit = [](CK_SESSION_HANDLE, CK_MECHANISM*, CK_OBJECT_HANDLE) { return Rv(); };
  functions.C_Decrypt = [](CK_SESSION_HANDLE, unsigned char*, CK_ULONG, unsigned char* output,
                           CK_ULONG* size) {
    Write(output, std::min<CK_ULONG>(*size, 64));
    *size = Size(*size);
    return Rv();
  };
  functions.C_DeriveKey = [](CK_SESSION_HANDLE, CK_MECHANISM*, CK_OBJECT_HANDLE, CK_ATTRIBUTE*,
                             CK_ULONG, CK_OBJECT_HANDLE*) { return Rv(); };
  functions.C_SignInit = [](CK_SESSION_HANDLE, CK_MECHANISM*, CK_OBJECT_HANDLE) { return Rv(); };
  functions.C_Sign = [](CK_SESSION_HANDLE, unsigned char*, CK_ULONG size, unsigned char* signature,
                        CK_ULONG* signature_size) {
    FUZZ_CHECK(size == hsm::kDigestBytes && *signature_size >= hsm::kSignatureBytes);
    Write(signature, std::min<CK_ULONG>(*signature_size, hsm::kSignatureBytes));
    *signature_size = Size(*signature_size);
    return Rv();
  };
  functions.C_DestroyObject = [](CK_SESSION_HANDLE, CK_OBJECT_HANDLE) { return Rv(); };
  functions.C_GetMechanismList = [](CK_SLOT_ID, CK_MECHANISM_TYPE* mechanisms, CK_ULONG* count) {
    Write(mechanisms, std::min<CK_ULONG>(*count, 4) * sizeof *mechanisms);
    *count = Size(*count);
    return Rv();
  };
  functions.C_GenerateKeyPair = [](CK_SESSION_HANDLE, CK_MECHANISM*, CK_ATTRIBUTE*, CK_ULONG,
                                   CK_ATTRIBUTE*, CK_ULONG, CK_OBJECT_HANDLE*,
                                   CK_OBJECT_HANDLE*) { return Rv(); };
}

}  // namespace

void Prepare() {
  SetFunctions();
  int sockets[2];
  FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
  worker_socket = sockets[0];
}

void VisitLargest(Feed feed) {
  // Each request at its largest, after a module was loaded and a session opened.
  for (std::uint8_t request = 0; request < 16; ++request) {
    Bytes input = {0x40, 0x00};
    const auto put = [&input](const Bytes& message) {
      input.insert(input.end(), {static_cast<std::uint8_t>(message.size() >> 8),
                                 static_cast<std::uint8_t>(message.size())});
      input.insert(input.end(), message.begin(), message.end());
    };
    put({1, 0, 1, 'm', 0, 0});
    put({4, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    Bytes large(hsm::kMaxRequestBytes, 0);
    large[0] = request;
    put(large);
    input.resize(2 + 0x4000, 0);
    input.insert(input.end(), 1 << 20, 0x90);  // the module claims more than it was given
    feed(input);
  }
}

}  // namespace keyescrow::fuzz

extern "C" {

// The sanitizer and libFuzzer are in the same program, and use some of these themselves.
[[noreturn]] void __real__exit(int status);
[[noreturn]] void __wrap__exit(int status);
int __real_poll(pollfd* entries, nfds_t count, int timeout_ms);
int __wrap_poll(pollfd* entries, nfds_t count, int timeout_ms);
ssize_t __real_recv(int fd, void* buffer, std::size_t size, int flags);
ssize_t __wrap_recv(int fd, void* buffer, std::size_t size, int flags);
ssize_t __real_sendmsg(int fd, const msghdr* message, int flags);
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags);
void* __real_dlopen(const char* path, int flags);
void* __wrap_dlopen(const char* path, int flags);

// The worker's process ends here; its objects are gone by then.
[[noreturn]] void __wrap__exit(int status) {
  if (!keyescrow::fuzz::in_worker) __real__exit(status);
  FUZZ_CHECK(status == 0);
  std::longjmp(keyescrow::fuzz::leave, 1);
}

// The next request is always there.
int __wrap_poll(pollfd* entries, nfds_t count, int timeout_ms) {
  return keyescrow::fuzz::in_worker ? 1 : __real_poll(entries, count, timeout_ms);
}

ssize_t __wrap_recv(int fd, void* buffer, std::size_t size, int flags) {
  using namespace keyescrow::fuzz;
  if (!in_worker) return __real_recv(fd, buffer, size, flags);
  FUZZ_CHECK(num_unanswered == 0);
  const keyescrow::ByteView message = requests->Field();
  if (message.empty()) return 0;
  std::memcpy(buffer, message.data(), std::min(size, message.size()));
  num_unanswered = 1;
  return static_cast<ssize_t>(message.size());
}

ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags) {
  using namespace keyescrow::fuzz;
  if (!in_worker) return __real_sendmsg(fd, message, flags);
  std::size_t size = 0;
  for (std::size_t part = 0; part < message->msg_iovlen; ++part) {
    size += message->msg_iov[part].iov_len;
  }
  FUZZ_CHECK(size >= 2 && size <= keyescrow::hsm::kMaxReplyBytes);
  if (message->msg_iovlen == 3) FUZZ_CHECK(size <= keyescrow::hsm::kMaxSecretReplyBytes);
  FUZZ_CHECK(num_unanswered == 1);
  num_unanswered = 0;
  return static_cast<ssize_t>(size);
}

// Whatever module a request names, it is this program, which exports C_GetFunctionList.
void* __wrap_dlopen(const char* path, int flags) {
  return __real_dlopen(keyescrow::fuzz::in_worker ? nullptr : path, flags);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST** list) {
  *list = &keyescrow::fuzz::functions;
  return CKR_OK;
}

}  // extern "C"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow::fuzz;
  Input input(data, size);
  const keyescrow::ByteView first = input.Field();
  Input request_input(first);
  Input answer_input(input.rest());
  requests = &request_input;
  module_answers = &answer_input;
  num_unanswered = 0;
  num_found = 0;
  in_worker = true;
  if (setjmp(leave) == 0) keyescrow::hsm::RunTokenWorker(worker_socket);
  in_worker = false;
  return 0;
}
