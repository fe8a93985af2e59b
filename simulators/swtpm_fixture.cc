#include "simulators/swtpm_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "envelope/base/byte_reader.h"
#include "tpm/marshal.h"

namespace keyescrow::simulators {
namespace {

using tpm::AppendU16;
using tpm::AppendU32;

constexpr std::uint32_t kRhOwner = 0x40000001;
constexpr std::uint32_t kRhLockout = 0x4000000a;
constexpr int kReadyTimeoutMs = 5000;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "swtpm fixture: %s: %s\n", what.c_str(), std::strerror(errno));
  std::abort();
}

// Build returns a whole command; with an `auth_handle` it is authorised by an empty password.
Bytes Build(std::uint32_t code, const Bytes& parameters, std::uint32_t auth_handle = 0) {
  Bytes body;
  if (auth_handle != 0) {
    AppendU32(body, auth_handle);
    AppendU32(body, 9);
    AppendU32(body, 0x40000009);  // TPM_RS_PW
    body.insert(body.end(), {0, 0, 0, 0, 0});
  }
  body.insert(body.end(), parameters.begin(), parameters.end());
  Bytes command;
  AppendU16(command, auth_handle != 0 ? 0x8002 : 0x8001);
  AppendU32(command, static_cast<std::uint32_t>(10 + body.size()));
  AppendU32(command, code);
  command.insert(command.end(), body.begin(), body.end());
  return command;
}

// Expect aborts unless the response is a success, which it returns.
Bytes Expect(Bytes response, const char* what) {
  ByteReader reader(response);
  reader.Take(6);
  if (reader.TakeU32() != 0U) {
    std::fprintf(stderr, "swtpm fixture: %s: %s\n", what, ToHex(response).c_str());
    std::abort();
  }
  return response;
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) Die("socket path too long: " + path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

int Listen(const std::string& path) {
  unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = Address(path);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd, 8) != 0) {
    Die("listening on " + path);
  }
  return fd;
}

void ReadFully(int fd, std::uint8_t* out, std::size_t size) {
  while (size > 0) {
    const ssize_t got = read(fd, out, size);
    if (got <= 0) Die("reading from swtpm");
    out += got;
    size -= static_cast<std::size_t>(got);
  }
}

}  // namespace

SwtpmFixture::SwtpmFixture() {
  char name[] = "/tmp/kes-tpm-XXXXXX";
  if (mkdtemp(name) == nullptr) Die("making a folder");
  folder_ = name;
  tcti_ = "swtpm:path=" + folder_ + "/s";
  Start();
}

SwtpmFixture::~SwtpmFixture() {
  Kill();
  RemoveFolder();
}

void SwtpmFixture::RemoveFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void SwtpmFixture::Start() {
  if (pid_ > 0) return;
  // The sockets are made here and inherited: they answer from the first moment, and no port is
  // guessed.
  const std::string path = folder_ + "/s";
  const int server = Listen(path);
  const int control = Listen(path + ".ctrl");
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) Die("fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    const int log = open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    const int inherited_server = fcntl(server, F_DUPFD, 10);
    const int inherited_control = fcntl(control, F_DUPFD, 10);
    const std::string state = "dir=" + folder_;
    const std::string server_argument = "type=unixio,fd=" + std::to_string(inherited_server);
    const std::string control_argument = "type=unixio,fd=" + std::to_string(inherited_control);
    execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", state.c_str(), "--server",
           server_argument.c_str(), "--ctrl", control_argument.c_str(), "--flags",
           "not-need-init,startup-clear", static_cast<char*>(nullptr));
    _exit(127);
  }
  close(server);
  close(control);
  // The first command waits until the TPM has started.
  Bytes parameters;
  AppendU32(parameters, 6);
  AppendU32(parameters, 0x100);
  AppendU32(parameters, 1);
  Expect(Command(Build(0x17a, parameters)), "starting (is swtpm installed?)");
}

void SwtpmFixture::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  unlink((folder_ + "/s").c_str());
  unlink((folder_ + "/s.ctrl").c_str());
}

void SwtpmFixture::Stop() {
  if (pid_ <= 0) return;
  Bytes parameters;
  AppendU16(parameters, 0);  // TPM_SU_CLEAR
  Expect(Command(Build(0x145, parameters)), "TPM2_Shutdown");
  Kill();
}

void SwtpmFixture::PowerCycle() {
  Stop();
  Start();
}

void SwtpmFixture::SigStop() {
  kill(pid_, SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}

void SwtpmFixture::SigCont() { kill(pid_, SIGCONT); }

Bytes SwtpmFixture::Command(ByteView command) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = Address(folder_ + "/s");
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    Die("connecting to swtpm");
  }
  if (write(fd, command.data(), command.size()) != static_cast<ssize_t>(command.size())) {
    Die("writing to swtpm");
  }
  pollfd waiting{fd, POLLIN, 0};
  if (poll(&waiting, 1, kReadyTimeoutMs) != 1) Die("swtpm does not answer");
  Bytes response(10);
  ReadFully(fd, response.data(), response.size());
  ByteReader reader(response);
  reader.Take(2);
  const std::uint32_t size = *reader.TakeU32();
  if (size < 10 || size > 4096) Die("swtpm sent nonsense");
  response.resize(size);
  ReadFully(fd, response.data() + 10, size - 10);
  close(fd);
  return response;
}

void SwtpmFixture::Clear() { Expect(Command(Build(0x126, {}, kRhLockout)), "TPM2_Clear"); }

void SwtpmFixture::ExtendPcr(std::uint32_t pcr, const Bytes32& digest) {
  Bytes parameters;
  AppendU32(parameters, 1);
  AppendU16(parameters, 0x000b);
  parameters.insert(parameters.end(), digest.begin(), digest.end());
  // PCR handles are the PCRs' numbers; 0 is one of them, so the command is built by hand.
  Bytes command = Build(0x182, parameters, 0x01000000);
  command[10] = 0;
  command[13] = static_cast<std::uint8_t>(pcr);
  Expect(Command(command), "TPM2_PCR_Extend");
}

void SwtpmFixture::SetOwnerAuth(std::string_view auth) {
  Bytes parameters;
  AppendU16(parameters, static_cast<std::uint32_t>(auth.size()));
  parameters.insert(parameters.end(), auth.begin(), auth.end());
  Expect(Command(Build(0x129, parameters, kRhOwner)), "TPM2_HierarchyChangeAuth");
}

void SwtpmFixture::SetLockoutAuth(std::string_view auth) {
  Bytes parameters;
  AppendU16(parameters, static_cast<std::uint32_t>(auth.size()));
  parameters.insert(parameters.end(), auth.begin(), auth.end());
  Expect(Command(Build(0x129, parameters, kRhLockout)), "TPM2_HierarchyChangeAuth");
}

void SwtpmFixture::SetDaParameters(std::uint32_t max_tries, std::uint32_t interval_s,
                                   std::uint32_t lockout_recovery_s) {
  Bytes parameters;
  AppendU32(parameters, max_tries);
  AppendU32(parameters, interval_s);
  AppendU32(parameters, lockout_recovery_s);
  Expect(Command(Build(0x13a, parameters, kRhLockout)), "TPM2_DictionaryAttackParameters");
}

void SwtpmFixture::ResetDa() {
  Expect(Command(Build(0x139, {}, kRhLockout)), "TPM2_DictionaryAttackLockReset");
}

std::uint32_t SwtpmFixture::LockoutCounter() {
  Bytes parameters;
  AppendU32(parameters, 6);
  AppendU32(parameters, 0x20e);
  AppendU32(parameters, 1);
  const Bytes response = Expect(Command(Build(0x17a, parameters)), "TPM2_GetCapability");
  ByteReader reader(response);
  reader.Take(10 + 1 + 4 + 4 + 4);
  return *reader.TakeU32();
}

std::vector<std::uint32_t> SwtpmFixture::Handles(std::uint32_t first) {
  Bytes parameters;
  AppendU32(parameters, 1);
  AppendU32(parameters, first);
  AppendU32(parameters, 64);
  const Bytes response = Expect(Command(Build(0x17a, parameters)), "TPM2_GetCapability");
  ByteReader reader(response);
  reader.Take(10 + 1 + 4);
  std::vector<std::uint32_t> handles(*reader.TakeU32());
  for (std::uint32_t& handle : handles) handle = *reader.TakeU32();
  return handles;
}

std::vector<std::uint32_t> SwtpmFixture::TransientObjects() { return Handles(0x80000000); }
std::vector<std::uint32_t> SwtpmFixture::LoadedSessions() { return Handles(0x02000000); }
std::vector<std::uint32_t> SwtpmFixture::PersistentObjects() { return Handles(0x81000000); }

int SwtpmFixture::Tool(const std::string& shell_command) {
  const std::string line = "cd '" + folder_ + "' && export TPM2TOOLS_TCTI='" + tcti_ +
                           "' TSS2_LOG=all+none && { " + shell_command + "; } >>tool.log 2>&1";
  const int status = std::system(line.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace keyescrow::simulators
