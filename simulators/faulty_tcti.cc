// faulty_tcti.so: a TCTI module, named to the loader as "PATH/faulty_tcti.so:swtpm:path=SOCKET". It
// forwards to the TCTI named after the first colon and misbehaves by the rules in
// FAULTY_TCTI_RULES:
//   N=ACTION[,N=ACTION]…          the N-th command that this process sends, from 1; 0: every one
// The TPM never sees the command:
//   error:HEX    transmit returns this TSS2_RC        refuse:HEX   the response is this TPM_RC
//   hang         no response ever comes
// The TPM has carried the command out:
//   drop:HEX     receive returns this TSS2_RC         rewrite:HEX  the response is this TPM_RC
//   lost         no response ever comes               delay:MS     it comes late
//   flip:BIT     this bit of it is flipped, counted from its first byte's highest, modulo its size
//   truncate:K   its last K bytes are missing         oversize:K   K bytes of zeros follow it
//   shorten:K, pad:K   the same, with the header's size set right
// Before the command goes out:
//   restart      TPM2_Shutdown, a reset of swtpm by its control socket, TPM2_Startup
//   cut          the same without the TPM2_Shutdown
// FAULTY_TCTI_TRACE names a file to which each command's code and response code are appended, in
// hexadecimal, a line each; a response code that nobody got is a dash.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tpm/tss.h"

namespace {

using Message = std::vector<std::uint8_t>;

constexpr std::uint64_t kMagic = 0x6661756c74795f74;
constexpr std::size_t kHeaderBytes = 10;
constexpr std::size_t kMaxMessageBytes = 4096;  // TPM2_MAX_RESPONSE_SIZE

struct Context {
  TSS2_TCTI_CONTEXT_COMMON_V1 common;  // first: the loader knows this part alone
  TSS2_TCTI_CONTEXT* inner;
  std::string* control;  // the path of swtpm's control socket
  Message* answer;       // what receive gives in place of the TPM's response; empty: nothing
  std::string* late;     // the action upon the response; empty: none
  std::uint32_t code;    // of the command that is under way
};

std::size_t num_commands = 0;

std::uint32_t U32(const Message& message, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t index = at; index < at + 4 && index < message.size(); ++index) {
    value = value << 8 | message[index];
  }
  return value;
}

void SetU32(Message& message, std::size_t at, std::uint32_t value) {
  for (std::size_t index = 0; index < 4; ++index) {
    message.at(at + index) = static_cast<std::uint8_t>(value >> (24 - 8 * index));
  }
}

// Header is a response or command of a header alone (Part 1, 18.2).
Message Header(std::uint32_t code) {
  Message message = {0x80, 0x01, 0, 0, 0, kHeaderBytes, 0, 0, 0, 0};
  SetU32(message, 6, code);
  return message;
}

void Trace(std::uint32_t code, const Message* response) {
  const char* path = std::getenv("FAULTY_TCTI_TRACE");
  if (path == nullptr) return;
  std::array<char, 32> line{};
  const int size = response != nullptr && response->size() >= kHeaderBytes
                       ? std::snprintf(line.data(), line.size(), "%x %x\n", code, U32(*response, 6))
                       : std::snprintf(line.data(), line.size(), "%x -\n", code);
  const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (write(fd, line.data(), static_cast<std::size_t>(size)) < 0) std::abort();
  close(fd);
}

unsigned long Number(std::string_view text, int base) {
  return std::strtoul(std::string(text).c_str(), nullptr, base);
}

std::string_view NameOf(std::string_view action) { return action.substr(0, action.find(':')); }

unsigned long ValueOf(std::string_view action, int base) {
  const std::size_t colon = action.find(':');
  return colon == std::string_view::npos ? 0 : Number(action.substr(colon + 1), base);
}

std::string ActionFor(std::size_t command) {
  const char* environment = std::getenv("FAULTY_TCTI_RULES");
  std::string_view rules = environment != nullptr ? environment : "";
  while (!rules.empty()) {
    const std::string_view rule = rules.substr(0, rules.find(','));
    rules.remove_prefix(rule.size() < rules.size() ? rule.size() + 1 : rules.size());
    const std::size_t equals = rule.find('=');
    if (equals == std::string_view::npos) std::abort();
    const unsigned long wanted = Number(rule.substr(0, equals), 10);
    if (wanted == 0 || wanted == command) return std::string(rule.substr(equals + 1));
  }
  return {};
}

Context& Of(TSS2_TCTI_CONTEXT* context) { return *reinterpret_cast<Context*>(context); }

TSS2_RC Send(Context& context, const std::uint8_t* command, std::size_t size) {
  auto* inner = reinterpret_cast<TSS2_TCTI_CONTEXT_COMMON_V1*>(context.inner);
  return inner->transmit(context.inner, size, command);
}

TSS2_RC ReceiveWhole(Context& context, Message& response, std::int32_t timeout) {
  auto* inner = reinterpret_cast<TSS2_TCTI_CONTEXT_COMMON_V1*>(context.inner);
  response.resize(kMaxMessageBytes);
  std::size_t size = response.size();
  const TSS2_RC rc = inner->receive(context.inner, &size, response.data(), timeout);
  response.resize(rc == TSS2_RC_SUCCESS ? size : 0);
  return rc;
}

// Startup and Shutdown take one parameter, TPM_SU_CLEAR (Part 3, 9).
void Carry(Context& context, std::uint32_t code) {
  Message command = Header(code);
  command.insert(command.end(), {0, 0});
  SetU32(command, 2, static_cast<std::uint32_t>(command.size()));
  Message response;
  if (Send(context, command.data(), command.size()) != TSS2_RC_SUCCESS ||
      ReceiveWhole(context, response, TSS2_TCTI_TIMEOUT_BLOCK) != TSS2_RC_SUCCESS ||
      U32(response, 6) != 0) {
    std::abort();
  }
}

// Restart resets the TPM behind the connection's back. Source: swtpm_ioctls(3), CMD_INIT.
void Restart(Context& context, bool orderly) {
  if (orderly) Carry(context, 0x145);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (context.control->size() >= sizeof address.sun_path) std::abort();
  std::memcpy(address.sun_path, context.control->c_str(), context.control->size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  constexpr std::array<std::uint8_t, 8> kInit = {0, 0, 0, 2, 0, 0, 0, 0};
  std::array<std::uint8_t, 4> result{};
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      write(fd, kInit.data(), kInit.size()) != static_cast<ssize_t>(kInit.size()) ||
      recv(fd, result.data(), result.size(), MSG_WAITALL) != static_cast<ssize_t>(result.size()) ||
      result != std::array<std::uint8_t, 4>{}) {
    std::abort();
  }
  close(fd);
  Carry(context, 0x144);
}

[[noreturn]] void BlockForEver() {
  while (true) pause();
}

TSS2_RC Transmit(TSS2_TCTI_CONTEXT* opaque, std::size_t size, const std::uint8_t* bytes) {
  Context& context = Of(opaque);
  const std::string action = ActionFor(++num_commands);
  const std::string_view name = NameOf(action);
  context.code = U32(Message(bytes, bytes + std::min(size, kHeaderBytes)), 6);
  context.answer->clear();
  context.late->clear();
  if (name == "error") {
    Trace(context.code, nullptr);
    return static_cast<TSS2_RC>(ValueOf(action, 16));
  }
  if (name == "refuse") {
    *context.answer = Header(static_cast<std::uint32_t>(ValueOf(action, 16)));
    return TSS2_RC_SUCCESS;
  }
  if (name == "restart" || name == "cut") {
    Restart(context, name == "restart");
  } else {
    *context.late = action;
    if (name == "hang") return TSS2_RC_SUCCESS;
  }
  return Send(context, bytes, size);
}

// Spoil does to a response what the action says; true if the caller gets `rc` in its place.
bool Spoil(std::string_view action, Message& response, TSS2_RC& rc) {
  const std::string_view name = NameOf(action);
  const std::size_t value = ValueOf(action, 10);
  if (name.empty()) return false;
  if (name == "drop") {
    rc = static_cast<TSS2_RC>(ValueOf(action, 16));
    return true;
  }
  if (name == "lost") BlockForEver();
  if (name == "delay") {
    usleep(static_cast<useconds_t>(value * 1000));
  } else if (name == "rewrite") {
    response = Header(static_cast<std::uint32_t>(ValueOf(action, 16)));
  } else if (name == "flip") {
    const std::size_t bit = value % (response.size() * 8);
    response[bit / 8] = static_cast<std::uint8_t>(response[bit / 8] ^ (0x80 >> (bit % 8)));
  } else if (name == "truncate" || name == "shorten") {
    response.resize(response.size() - std::min(value, response.size()));
  } else if (name == "oversize" || name == "pad") {
    response.resize(response.size() + value);
  } else {
    std::abort();
  }
  if ((name == "shorten" || name == "pad") && response.size() >= 6) {
    SetU32(response, 2, static_cast<std::uint32_t>(response.size()));
  }
  return false;
}

TSS2_RC Receive(TSS2_TCTI_CONTEXT* opaque, std::size_t* size, std::uint8_t* bytes,
                std::int32_t timeout) {
  Context& context = Of(opaque);
  if (*context.late == "hang") {
    Trace(context.code, nullptr);
    BlockForEver();
  }
  Message response = *context.answer;
  if (response.empty()) {
    TSS2_RC rc = ReceiveWhole(context, response, timeout);
    if (rc == TSS2_TCTI_RC_TRY_AGAIN) return rc;
    Trace(context.code, rc == TSS2_RC_SUCCESS ? &response : nullptr);
    if (rc != TSS2_RC_SUCCESS || Spoil(*context.late, response, rc)) return rc;
  } else {
    Trace(context.code, &response);
  }
  const std::size_t room = *size;
  *size = response.size();
  if (response.size() > room) return TSS2_TCTI_RC_INSUFFICIENT_BUFFER;
  std::copy(response.begin(), response.end(), bytes);
  return TSS2_RC_SUCCESS;
}

void Finalize(TSS2_TCTI_CONTEXT* opaque) {
  Context& context = Of(opaque);
  Tss2_TctiLdr_Finalize(&context.inner);
  delete context.control;
  delete context.answer;
  delete context.late;
}

TSS2_RC Cancel(TSS2_TCTI_CONTEXT* /*context*/) { return TSS2_TCTI_RC_NOT_IMPLEMENTED; }

TSS2_RC PollHandles(TSS2_TCTI_CONTEXT* /*context*/, TSS2_TCTI_POLL_HANDLE* /*handles*/,
                    std::size_t* /*num_handles*/) {
  return TSS2_TCTI_RC_NOT_IMPLEMENTED;
}

TSS2_RC Locality(TSS2_TCTI_CONTEXT* /*context*/, std::uint8_t /*locality*/) {
  return TSS2_TCTI_RC_NOT_IMPLEMENTED;
}

// Initialize is asked for the size first, then for the context (TCTI 3.4.2).
TSS2_RC Initialize(TSS2_TCTI_CONTEXT* opaque, std::size_t* size, const char* config) {
  if (size == nullptr) return TSS2_TCTI_RC_BAD_VALUE;
  if (opaque == nullptr) {
    *size = sizeof(Context);
    return TSS2_RC_SUCCESS;
  }
  if (config == nullptr || *size < sizeof(Context)) return TSS2_TCTI_RC_BAD_VALUE;
  TSS2_TCTI_CONTEXT* inner = nullptr;
  if (const TSS2_RC rc = Tss2_TctiLdr_Initialize(config, &inner); rc != TSS2_RC_SUCCESS) return rc;
  Context& context = Of(opaque);
  context.common = {kMagic, 1, &Transmit, &Receive, &Finalize, &Cancel, &PollHandles, &Locality};
  context.inner = inner;
  const std::string_view name = config;
  const std::size_t equals = name.find('=');
  context.control = new std::string(equals == std::string_view::npos
                                        ? std::string()
                                        : std::string(name.substr(equals + 1)) + ".ctrl");
  context.answer = new Message();
  context.late = new std::string();
  context.code = 0;
  return TSS2_RC_SUCCESS;
}

constexpr TSS2_TCTI_INFO kInfo = {1, "faulty", "a TCTI that misbehaves on command",
                                  "another TCTI's name and configuration", &Initialize};

}  // namespace

extern "C" const TSS2_TCTI_INFO* Tss2_Tcti_Info(void) { return &kInfo; }
