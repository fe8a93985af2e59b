// The agent's end of a token worker that was taken over: each request is answered with what the
// input says. Sockets are real; the process is not there. The parent fails, or gets a secret of the
// right size, and hangs, crashes and leaves descriptors behind in no case.
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "envelope/pkcs11_uri.h"
#include "hsm/probe.h"
#include "hsm/token_client.h"
#include "hsm/token_factor.h"
#include "hsm/token_protocol.h"
#include "hsm/token_signer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/keys.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 65536, .memory_mib = 64, .cpu_s = 2};

void Prepare() { FixedRsaSpki(); }

namespace {

Input* current = nullptr;
int worker_end = -1;
int agent_end = -1;
int num_requests = 0;
bool killed = false;

void CloseWorkerEnd() {
  if (worker_end >= 0) close(worker_end);
  worker_end = -1;
}

// Answer sends the reply that the input has for a request: raw, or behind the head that the agent
// expects. Where there is none, or for a kind of its own, the worker is gone.
void Answer(std::uint8_t request) {
  FUZZ_CHECK(++num_requests < 5000);
  if (worker_end < 0) return;
  const std::uint8_t kind = current->U8();
  if (current->empty() || kind == 0xff) return CloseWorkerEnd();
  Bytes reply;
  if (kind % 4 != 0) reply = {request, static_cast<std::uint8_t>(kind % 4 == 2 ? 1 : 0)};
  const ByteView body = current->Field();
  reply.insert(reply.end(), body.begin(), body.end());
  if (send(worker_end, reply.data(), reply.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    CloseWorkerEnd();
  }
}

class Pins final : public envelope::PinProvider {
 public:
  Result<SecretBytes> AskPin(const envelope::PinRequest&) override {
    FUZZ_CHECK(++num_asked <= 1);
    return SecretBytes::CopyOf(AsBytes("123456"));
  }
  void OnReader(const envelope::PinRequest&) override {}
  int num_asked = 0;
};

void CheckPrintable(const Error& error) {
  CheckError(error);
  for (const std::string& text : {error.message(), error.hint()}) {
    for (const char c : text) {
      FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    }
  }
}

template <typename T>
void Check(const Result<T>& result) {
  if (!result) CheckPrintable(result.error());
}

hsm::TokenSpec Spec(bool is_rsa) {
  hsm::TokenSpec spec;
  spec.name = "ops";
  spec.module_path = "/lib/module.so";
  spec.uri = "pkcs11:token=ops";
  const auto point = FixedKeyPair().Public().Spki();
  spec.spki = is_rsa ? FixedRsaSpki() : ToBytes(point);
  return spec;
}

void Unwrap(bool is_rsa) {
  Pins pins;
  auto factor = hsm::TokenFactor::Start(Spec(is_rsa), pins);
  FUZZ_CHECK(factor.has_value());
  for (int use = 0; use < 2; ++use) {
    Result<SecretBytes> secret = SecretBytes();
    if (is_rsa) {
      envelope::Pkcs11RsaRecord record;
      record.spki = FixedRsaSpki();
      record.wrapped = Bytes(256, 1);
      secret = (*factor)->UnwrapRsa(record);
    } else {
      envelope::Pkcs11EcdhRecord record;
      record.spki = Spec(false).spki;
      const auto point = FixedKeyPair().Public().Uncompressed();
      record.epk = ToBytes(point);
      secret = (*factor)->DeriveEcdh(record);
    }
    Check(secret);
    if (secret) FUZZ_CHECK(secret->size() == 32);
  }
  (*factor)->Finish();
}

void CallEach() {
  auto started = hsm::TokenClient::Start("/lib/module.so", "", {});
  FUZZ_CHECK(started.has_value());
  hsm::TokenClient& client = **started;
  const auto report = client.Report();
  Check(report);
  if (report) FUZZ_CHECK(report->tokens.size() <= hsm::kMaxTokens);
  Check(client.ReadToken(1));
  hsm::TokenInfo token;
  if (report && !report->tokens.empty()) token = report->tokens[0];
  Check(client.OpenSession(token));
  FUZZ_CHECK(hsm::TokenUri(token, {}).size() <= envelope::Pkcs11Uri::kMaxSizeBytes);
  const auto keys = client.ListKeys(hsm::KeyClass::kPublic);
  Check(keys);
  if (keys) FUZZ_CHECK(keys->size() < hsm::kMaxKeys + hsm::kMaxKeysInReply);
  const auto evidence = client.ReadEvidence(1);
  Check(evidence);
  if (evidence) FUZZ_CHECK(evidence->size() == hsm::kNumEvidenceBooleans);
  Check(client.GenerateKeyPair(2, Bytes{1}, "x"));
  Check(client.SignEcdsa(1, Bytes32{}, {}));
  Check(client.DecryptRsa(1, OaepHash::kSha1, Bytes(256, 1), {}));
}

// Sign: a signature that the key does not verify never gets out.
void Sign(bool by_uri) {
  Pins pins;
  hsm::TokenSpec spec = Spec(false);
  if (by_uri) spec.spki.clear();
  auto signer = hsm::TokenSigner::Open(std::move(spec), pins);
  Check(signer);
  for (int use = 0; signer && use < 2; ++use) {
    const auto signature = (*signer)->SignDigest(Bytes32{});
    Check(signature);
    if (signature) FUZZ_CHECK(VerifyEs256((*signer)->PublicKey(), Bytes32{}, *signature));
  }
}

void ProbeModule(std::uint8_t operation) {
  Pins pins;
  const hsm::ProbeSpec where{"/lib/module.so", "", "pkcs11:token=ops"};
  switch (operation) {
    case 3: Check(hsm::InspectModule(where)); break;
    case 4: Check(hsm::ReadPublicKeys(where, &pins)); break;
    case 5: Check(hsm::FindPublicKey(where)); break;
    case 6: Check(hsm::ReadKeyEvidence(Spec(false), pins)); break;
    default:
      Check(hsm::GenerateKeyPair({where, hsm::GeneratedKey::kP256, Bytes{1}, "escrow"}, pins));
      break;
  }
}

}  // namespace

void VisitLargest(Feed feed) {
  for (std::uint8_t operation = 0; operation < 10; ++operation) {
    // The same key for ever, with more to come: 16 of them in each reply.
    Bytes input = {operation};
    const auto reply = [&input](const Bytes& body) {
      input.insert(input.end(), {1, static_cast<std::uint8_t>(body.size() >> 8),
                                 static_cast<std::uint8_t>(body.size())});
      input.insert(input.end(), body.begin(), body.end());
    };
    reply({});
    Bytes tokens(8, 0);
    tokens.insert(tokens.end(), {0, 0, 0, 0, 0, 64});
    for (int token = 0; token < 64; ++token) {
      tokens.insert(tokens.end(), 8, static_cast<std::uint8_t>(token));
      tokens.insert(tokens.end(), {0, 3, 'o', 'p', 's', 0, 0, 0, 0, 0, 0, 1, 1});
      tokens.insert(tokens.end(), 24, 0);
    }
    reply(tokens);
    Bytes keys = {1, 0, 16};
    for (int key = 0; key < 16; ++key) {
      keys.insert(keys.end(), 17, 0);
      for (int field = 0; field < 6; ++field) {
        keys.insert(keys.end(), {2, 0});
        keys.insert(keys.end(), 512, 0x41);
      }
    }
    for (int count = 0; count < 70; ++count) {
      if (operation != 2) reply({});
      reply(keys);
    }
    feed(input);
  }
}

}  // namespace keyescrow::fuzz

extern "C" {

int __real_socketpair(int domain, int type, int protocol, int sockets[2]);
int __wrap_socketpair(int domain, int type, int protocol, int sockets[2]);
int __wrap_posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                       const posix_spawnattr_t* attributes, char* const arguments[],
                       char* const environment[]);
pid_t __wrap_waitpid(pid_t pid, int* status, int options);
int __wrap_kill(pid_t pid, int signal_number);
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags);

int __wrap_socketpair(int domain, int type, int protocol, int sockets[2]) {
  using namespace keyescrow::fuzz;
  if (__real_socketpair(domain, type, protocol, sockets) != 0) return -1;
  CloseWorkerEnd();
  agent_end = sockets[0];
  worker_end = dup(sockets[1]);
  return 0;
}

int __wrap_posix_spawn(pid_t* pid, const char* /*path*/,
                       const posix_spawn_file_actions_t* /*actions*/,
                       const posix_spawnattr_t* /*attributes*/, char* const* /*arguments*/,
                       char* const* /*environment*/) {
  *pid = 1;
  return 0;
}

// The worker is gone by the time that anybody waits for it.
pid_t __wrap_waitpid(pid_t pid, int* status, int /*options*/) {
  *status = keyescrow::fuzz::killed ? SIGKILL : 0;
  keyescrow::fuzz::CloseWorkerEnd();
  return pid;
}

int __wrap_kill(pid_t /*pid*/, int /*signal_number*/) {
  keyescrow::fuzz::killed = true;
  return 0;
}

ssize_t __wrap_sendmsg(int fd, const msghdr* message, int /*flags*/) {
  using namespace keyescrow::fuzz;
  FUZZ_CHECK(fd == agent_end);
  std::size_t size = 0;
  for (std::size_t part = 0; part < message->msg_iovlen; ++part) {
    size += message->msg_iov[part].iov_len;
  }
  FUZZ_CHECK(size >= 1 && size <= keyescrow::hsm::kMaxRequestBytes);
  const std::uint8_t request = *static_cast<const std::uint8_t*>(message->msg_iov[0].iov_base);
  if (request != static_cast<std::uint8_t>(keyescrow::hsm::TokenRequest::kLeave)) Answer(request);
  return static_cast<ssize_t>(size);
}

}  // extern "C"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow::fuzz;
  Input input(data, size);
  current = &input;
  num_requests = 0;
  killed = false;
  const std::uint8_t first = input.U8();
  const std::uint8_t operation = first < 10 ? first : first % 8;
  const int before = dup(0);
  close(before);
  if (operation < 2) {
    Unwrap(operation == 0);
  } else if (operation == 2) {
    CallEach();
  } else if (operation >= 8) {
    Sign(operation == 9);
  } else {
    ProbeModule(operation);
  }
  CloseWorkerEnd();
  const int after = dup(0);
  close(after);
  FUZZ_CHECK(before == after);  // the lowest free descriptor is the one that it was
  return 0;
}
