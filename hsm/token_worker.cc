#include "hsm/token_worker.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "envelope/base/pause_point.h"
#include "hsm/module_session.h"
#include "hsm/token_protocol.h"

#ifdef KEYESCROW_COVERAGE
extern "C" void __gcov_dump();
#endif

namespace keyescrow::hsm {
namespace {

bool IsSeqpacketSocket(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

// Trimmed returns a fixed, blank-padded text of PKCS#11 without its padding.
template <std::size_t kSize>
std::string_view Trimmed(const CK_UTF8CHAR (&text)[kSize]) {
  std::string_view view(reinterpret_cast<const char*>(text), kSize);
  view = view.substr(0, view.find('\0'));
  const std::size_t last = view.find_last_not_of(' ');
  return last == std::string_view::npos ? std::string_view() : view.substr(0, last + 1);
}

void PutToken(MessageWriter& writer, CK_SLOT_ID slot, const CK_TOKEN_INFO& info) {
  writer.PutU64(slot);
  writer.PutField(Trimmed(info.label));
  writer.PutField(Trimmed(info.manufacturerID));
  writer.PutField(Trimmed(info.model));
  writer.PutField(Trimmed(info.serialNumber));
  writer.PutU8(info.firmwareVersion.major);
  writer.PutU8(info.firmwareVersion.minor);
  writer.PutU64(info.flags);
  writer.PutU64(info.ulMinPinLen);
  writer.PutU64(info.ulMaxPinLen);
}

class Worker {
 public:
  explicit Worker(int socket_fd) : fd_(socket_fd), session_(module_) {}

  // Serve answers requests until the agent leaves.
  void Serve() {
    auto buffer = SecretBytes::Allocate(kMaxRequestBytes);
    if (!buffer) return RefuseAll();
    while (true) {
      // The agent has no deadline: a person may be looking for the PIN. Its end wakes the worker.
      if (!AwaitMessage(fd_, std::chrono::hours(24))) continue;
      const auto bytes = buffer->ExposeMutable();
      const ssize_t size = recv(fd_, bytes.data(), bytes.size(), MSG_TRUNC);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0 || static_cast<std::size_t>(size) > bytes.size()) break;
      ByteReader reader(ByteView(bytes).first(static_cast<std::size_t>(size)));
      const auto request = static_cast<TokenRequest>(*reader.TakeU8());
      if (request == TokenRequest::kLeave) break;
      if (!Answer(request, reader)) ReplyStatus(request, TokenReply::kBadRequest);
      Cleanse(bytes.data(), static_cast<std::size_t>(size));
    }
    session_.Close();
  }

 private:
  // RefuseAll says that no memory can be locked for a request: of each it takes the first byte, and
  // the kernel drops the rest unseen.
  void RefuseAll() {
    while (true) {
      if (!AwaitMessage(fd_, std::chrono::hours(24))) continue;
      std::uint8_t request = 0;
      const ssize_t size = recv(fd_, &request, 1, 0);
      if (size < 0 && errno == EINTR) continue;
      if (size != 1 || static_cast<TokenRequest>(request) == TokenRequest::kLeave) return;
      ReplyStatus(static_cast<TokenRequest>(request), TokenReply::kNoMemory);
    }
  }

  // Answer replies to one request; false, with nothing sent, where it does not parse.
  bool Answer(TokenRequest request, ByteReader& reader) {
    if (request == TokenRequest::kLoad) return Load(reader);
    if (!module_.loaded()) return ReplyNotLoaded(request);
    switch (request) {
      case TokenRequest::kListTokens: return ListTokens(reader);
      case TokenRequest::kReadToken: return ReadToken(reader);
      case TokenRequest::kOpenSession: return OpenSession(reader);
      case TokenRequest::kReadMechanisms: return ReadMechanisms(reader);
      default: break;
    }
    if (!session_.open()) return false;
    switch (request) {
      case TokenRequest::kListKeys: return ListKeys(reader);
      case TokenRequest::kLogin: return Login(reader);
      case TokenRequest::kDecryptRsa: return DecryptRsa(reader);
      case TokenRequest::kDeriveEcdh: return DeriveEcdh(reader);
      case TokenRequest::kSign: return Sign(reader);
      case TokenRequest::kReadEvidence: return ReadEvidence(reader);
      case TokenRequest::kGenerate: return Generate(reader);
      default: return false;
    }
  }

  static MessageWriter Reply(TokenRequest request, TokenReply status) {
    MessageWriter writer;
    writer.PutU8(static_cast<std::uint8_t>(request));
    writer.PutU8(static_cast<std::uint8_t>(status));
    return writer;
  }
  void Send(const MessageWriter& writer, const SecretBytes* secret = nullptr) {
    if (!SendMessage(fd_, writer.bytes(), secret)) _exit(1);  // the agent is gone
  }
  bool ReplyStatus(TokenRequest request, TokenReply status, std::string_view text = {}) {
    MessageWriter writer = Reply(request, status);
    writer.PutField(text.substr(0, kMaxTextBytes));
    Send(writer);
    return true;
  }
  bool ReplyFailure(TokenRequest request, const ModuleFailure& failure) {
    MessageWriter writer = Reply(request, TokenReply::kModuleError);
    writer.PutU8(static_cast<std::uint8_t>(failure.call));
    writer.PutU64(failure.rv);
    writer.PutField(std::string_view(failure.text).substr(0, kMaxTextBytes));
    Send(writer);
    return true;
  }
  bool ReplyOk(TokenRequest request) {
    Send(Reply(request, TokenReply::kOk));
    return true;
  }
  bool ReplyResult(TokenRequest request, const ModuleStatus& failure) {
    return failure ? ReplyFailure(request, *failure) : ReplyOk(request);
  }

  bool Load(ByteReader& reader) {
    const auto path = TakeField(reader, kMaxPathBytes);
    const auto arguments = TakeField(reader, kMaxArgumentsBytes);
    if (!path || !arguments || !reader.AtEnd() || module_.loaded()) return false;
    outcome_ = module_.Load(std::string(AsText(*path)), std::string(AsText(*arguments)));
    if (outcome_ != LoadOutcome::kLoaded) return ReplyNotLoaded(TokenRequest::kLoad);
    return ReplyOk(TokenRequest::kLoad);
  }

  bool ReplyNotLoaded(TokenRequest request) {
    switch (outcome_) {
      case LoadOutcome::kMissing: return ReplyStatus(request, TokenReply::kModuleMissing);
      case LoadOutcome::kInvalid:
        return ReplyStatus(request, TokenReply::kModuleInvalid, module_.reason());
      case LoadOutcome::kInitializeFailed:
        return ReplyFailure(request, {TokenCall::kInitialize, module_.initialize_rv(), {}});
      case LoadOutcome::kLoaded: break;
    }
    return false;
  }

  // SoftHSM fails where another process writes the token's flags in this moment, as each login
  // does: it is asked again, which costs no try.
  CK_RV ReadTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO& info) {
    constexpr int kLooks = 4;
    constexpr std::chrono::milliseconds kPause{3};
    CK_RV rv = module_->C_GetTokenInfo(slot, &info);
    for (int look = 1; rv == CKR_GENERAL_ERROR && look < kLooks; ++look) {
      std::this_thread::sleep_for(kPause);
      rv = module_->C_GetTokenInfo(slot, &info);
    }
    return rv;
  }

  bool ListTokens(ByteReader& reader) {
    if (!reader.AtEnd()) return false;
    CK_INFO info{};
    if (const CK_RV rv = module_->C_GetInfo(&info); rv != CKR_OK) {
      return ReplyFailure(TokenRequest::kListTokens, {TokenCall::kGetInfo, rv, {}});
    }
    std::vector<CK_SLOT_ID> slots(kMaxTokens);
    CK_ULONG count = slots.size();
    if (const CK_RV rv = module_->C_GetSlotList(CK_TRUE, slots.data(), &count); rv != CKR_OK) {
      return ReplyFailure(TokenRequest::kListTokens, {TokenCall::kGetSlotList, rv, {}});
    }
    slots.resize(std::min<std::size_t>(count, slots.size()));
    std::vector<std::pair<CK_SLOT_ID, CK_TOKEN_INFO>> tokens;
    std::uint32_t num_uninitialized = 0;
    for (const CK_SLOT_ID slot : slots) {
      CK_TOKEN_INFO token{};
      if (ReadTokenInfo(slot, token) != CKR_OK) continue;  // pulled, or unknown
      if ((token.flags & CKF_TOKEN_INITIALIZED) == 0) {
        ++num_uninitialized;
      } else {
        tokens.emplace_back(slot, token);
      }
    }
    MessageWriter writer = Reply(TokenRequest::kListTokens, TokenReply::kOk);
    writer.PutField(Trimmed(info.manufacturerID));
    writer.PutField(Trimmed(info.libraryDescription));
    writer.PutU8(info.libraryVersion.major);
    writer.PutU8(info.libraryVersion.minor);
    writer.PutU8(info.cryptokiVersion.major);
    writer.PutU8(info.cryptokiVersion.minor);
    writer.PutU32(num_uninitialized);
    writer.PutU16(static_cast<std::uint16_t>(tokens.size()));
    for (const auto& [slot, token] : tokens) PutToken(writer, slot, token);
    Send(writer);
    return true;
  }

  bool ReadToken(ByteReader& reader) {
    const auto slot = TakeU64(reader);
    if (!slot || !reader.AtEnd()) return false;
    CK_TOKEN_INFO info{};
    if (const CK_RV rv = ReadTokenInfo(*slot, info); rv != CKR_OK) {
      return ReplyFailure(TokenRequest::kReadToken, {TokenCall::kGetTokenInfo, rv, {}});
    }
    MessageWriter writer = Reply(TokenRequest::kReadToken, TokenReply::kOk);
    PutToken(writer, *slot, info);
    Send(writer);
    return true;
  }

  // A mechanism that the module gives no answer about is one that it does not offer.
  bool ReadMechanisms(ByteReader& reader) {
    const auto slot = TakeU64(reader);
    if (!slot || !reader.AtEnd()) return false;
    constexpr struct {
      TokenMechanism bit;
      CK_MECHANISM_TYPE type;
      CK_FLAGS use;
    } kWanted[] = {{TokenMechanism::kRsaOaep, CKM_RSA_PKCS_OAEP, CKF_DECRYPT},
                   {TokenMechanism::kRsaRaw, CKM_RSA_X_509, CKF_DECRYPT},
                   {TokenMechanism::kEcdh, CKM_ECDH1_DERIVE, CKF_DERIVE}};
    // Both are asked: SoftHSM keeps what its settings forbid out of the list alone.
    constexpr CK_ULONG kMaxMechanisms = 4096;
    CK_ULONG num_offered = 0;
    std::vector<CK_MECHANISM_TYPE> offered;
    if (module_->C_GetMechanismList(*slot, nullptr, &num_offered) == CKR_OK &&
        num_offered <= kMaxMechanisms) {
      offered.resize(num_offered);
      const CK_RV rv = module_->C_GetMechanismList(*slot, offered.data(), &num_offered);
      offered.resize(rv == CKR_OK ? std::min<CK_ULONG>(num_offered, offered.size()) : 0);
    }
    unsigned bits = 0;
    for (const auto& wanted : kWanted) {
      CK_MECHANISM_INFO info{};
      if (std::find(offered.begin(), offered.end(), wanted.type) != offered.end() &&
          module_->C_GetMechanismInfo != nullptr &&
          module_->C_GetMechanismInfo(*slot, wanted.type, &info) == CKR_OK &&
          (info.flags & wanted.use) != 0) {
        bits |= static_cast<unsigned>(wanted.bit);
      }
    }
    MessageWriter writer = Reply(TokenRequest::kReadMechanisms, TokenReply::kOk);
    writer.PutU8(static_cast<std::uint8_t>(bits));
    Send(writer);
    return true;
  }

  bool OpenSession(ByteReader& reader) {
    const auto slot = TakeU64(reader);
    const auto read_write = reader.TakeU8();
    if (!slot || !read_write || !reader.AtEnd()) return false;
    return ReplyResult(TokenRequest::kOpenSession, session_.Open(*slot, *read_write != 0));
  }

  bool ListKeys(ByteReader& reader) {
    const auto is_private = reader.TakeU8();
    const auto first = reader.TakeU16();
    if (!is_private || !first || !reader.AtEnd()) return false;
    std::vector<KeyRow> keys;
    bool more = false;
    const CK_OBJECT_CLASS object_class = *is_private != 0 ? CKO_PRIVATE_KEY : CKO_PUBLIC_KEY;
    if (auto failure = session_.ListKeys(object_class, *first, keys, more)) {
      return ReplyFailure(TokenRequest::kListKeys, *failure);
    }
    MessageWriter writer = Reply(TokenRequest::kListKeys, TokenReply::kOk);
    writer.PutU8(more ? 1 : 0);
    writer.PutU16(static_cast<std::uint16_t>(keys.size()));
    for (const KeyRow& key : keys) {
      writer.PutU64(key.handle);
      writer.PutU64(key.key_type);
      writer.PutU8(key.always_authenticate ? 1 : 0);
      for (const Bytes* value :
           {&key.id, &key.label, &key.modulus, &key.exponent, &key.ec_params, &key.ec_point}) {
        writer.PutField(*value);
      }
    }
    Send(writer);
    return true;
  }

  // TakePin reads the last field of a request; `usable` is false where it does not parse.
  static std::optional<SecretBytes> TakePin(ByteReader& reader) {
    const auto bytes = TakeField(reader, kMaxPinBytes);
    if (!bytes || !reader.AtEnd()) return std::nullopt;
    auto pin = SecretBytes::CopyOf(*bytes);
    if (!pin) return std::nullopt;
    return *std::move(pin);
  }

  bool Login(ByteReader& reader) {
    const auto on_reader = reader.TakeU8();
    const auto pin = TakePin(reader);
    if (!on_reader || !pin || pin->empty() != (*on_reader != 0)) return false;
    const ModuleStatus failure = session_.Login(*on_reader != 0 ? nullptr : &*pin);
    PausePoint("worker-logged-in");
    const bool replied = ReplyResult(TokenRequest::kLogin, failure);
    // What the agent asked in the same breath is refused, and the token not asked for it.
    if (failure) session_.Close();
    return replied;
  }

  // ReplySecret sends a byte of meaning and the secret.
  bool ReplySecret(TokenRequest request, bool flag, const SecretBytes& secret) {
    MessageWriter writer = Reply(request, TokenReply::kOk);
    writer.PutU8(flag ? 1 : 0);
    Send(writer, &secret);
    return true;
  }

  static KeyOperation Operation(std::uint64_t key, std::uint8_t login, const SecretBytes& pin) {
    return {key, login == 1 ? &pin : nullptr, login == 2};
  }

  bool DecryptRsa(ByteReader& reader) {
    const auto key = TakeU64(reader);
    const auto hash = reader.TakeU8();
    const auto ciphertext = TakeField(reader, kMaxNumberBytes);
    const auto login = reader.TakeU8();
    const auto pin = TakePin(reader);
    if (!key || !hash || !ciphertext || !login || !pin) return false;
    auto output = SecretBytes::Allocate(kMaxNumberBytes);
    if (!output) return ReplyStatus(TokenRequest::kDecryptRsa, TokenReply::kNoMemory);
    bool raw = false;
    if (auto failure = session_.DecryptRsa(Operation(*key, *login, *pin),
                                           *hash == 0 ? OaepHash::kSha1 : OaepHash::kSha256,
                                           *ciphertext, raw, *output)) {
      return ReplyFailure(TokenRequest::kDecryptRsa, *failure);
    }
    PausePoint("worker-decrypted");
    return ReplySecret(TokenRequest::kDecryptRsa, raw, *output);
  }

  bool DeriveEcdh(ByteReader& reader) {
    const auto key = TakeU64(reader);
    const auto point = TakeField(reader, 65);
    const auto shared_info = TakeField(reader, kMaxTextBytes);
    const auto login = reader.TakeU8();
    const auto pin = TakePin(reader);
    if (!key || !point || point->size() != 65 || !shared_info || !login || !pin) return false;
    auto output = SecretBytes::Allocate(64);
    if (!output) return ReplyStatus(TokenRequest::kDeriveEcdh, TokenReply::kNoMemory);
    bool is_s = false;
    if (auto failure = session_.DeriveEcdh(Operation(*key, *login, *pin), *point, *shared_info,
                                           is_s, *output)) {
      return ReplyFailure(TokenRequest::kDeriveEcdh, *failure);
    }
    PausePoint("worker-derived");
    return ReplySecret(TokenRequest::kDeriveEcdh, is_s, *output);
  }

  bool Sign(ByteReader& reader) {
    const auto key = TakeU64(reader);
    const auto digest = TakeField(reader, kDigestBytes);
    const auto login = reader.TakeU8();
    const auto pin = TakePin(reader);
    if (!key || !digest || digest->size() != kDigestBytes || !login || !pin) return false;
    Bytes signature;
    if (auto failure = session_.SignEcdsa(Operation(*key, *login, *pin), *digest, signature)) {
      return ReplyFailure(TokenRequest::kSign, *failure);
    }
    MessageWriter writer = Reply(TokenRequest::kSign, TokenReply::kOk);
    writer.PutField(signature);
    Send(writer);
    return true;
  }

  bool ReadEvidence(ByteReader& reader) {
    const auto key = TakeU64(reader);
    if (!key || !reader.AtEnd()) return false;
    std::vector<std::uint8_t> booleans;
    if (auto failure = session_.ReadEvidence(*key, booleans)) {
      return ReplyFailure(TokenRequest::kReadEvidence, *failure);
    }
    MessageWriter writer = Reply(TokenRequest::kReadEvidence, TokenReply::kOk);
    writer.PutField(ByteView(booleans));
    Send(writer);
    return true;
  }

  bool Generate(ByteReader& reader) {
    const auto kind = reader.TakeU8();
    const auto id = TakeField(reader, kMaxIdBytes);
    const auto label = TakeField(reader, kMaxIdBytes);
    if (!kind || *kind > 2 || !id || !label || !reader.AtEnd()) return false;
    return ReplyResult(TokenRequest::kGenerate, session_.GenerateKeyPair(*kind, *id, *label));
  }

  int fd_;
  Module module_;
  LoadOutcome outcome_ = LoadOutcome::kMissing;
  ModuleSession session_;
};

// How long the call that a worker is in may go on once the agent is gone.
constexpr time_t kEndPatienceSeconds = 15;
timer_t end_timer;

extern "C" void EndSoon(int) {
  const itimerspec patience{{}, {kEndPatienceSeconds, 0}};
  timer_settime(end_timer, 0, &patience, nullptr);  // async-signal-safe
}

// EndAfterTheAgent lets the worker finish the call that it is in when the agent is gone, killed or
// not; the socket's end then ends it. SoftHSM 2.6 writes a token's file anew at each login: killed
// in the middle of that, it leaves a token that nothing opens again. A call that does not return
// is cut short.
void EndAfterTheAgent() {
  sigevent kill{};
  kill.sigev_notify = SIGEV_SIGNAL;
  kill.sigev_signo = SIGKILL;
  struct sigaction action {};
  action.sa_handler = &EndSoon;
  action.sa_flags = SA_RESTART;  // a module that waits for a lock goes on waiting
  // One a process: the fuzzer runs many workers in one, and RLIMIT_SIGPENDING counts timers.
  static const bool has_timer = timer_create(CLOCK_MONOTONIC, &kill, &end_timer) == 0;
  const bool patient = has_timer && sigaction(SIGTERM, &action, nullptr) == 0;
  prctl(PR_SET_PDEATHSIG, patient ? SIGTERM : SIGKILL, 0, 0, 0);
}

}  // namespace

int RunTokenWorker(int socket_fd) {
  if (!IsSeqpacketSocket(socket_fd)) _exit(2);
  EndAfterTheAgent();
  prctl(PR_SET_NAME, "keyescrow-token", 0, 0, 0);
  HardenProcess();
  // Ctrl-C is the agent's to handle: its end ends the worker, in the middle of no C_Login by us.
  signal(SIGINT, SIG_IGN);
  fcntl(socket_fd, F_SETFD, FD_CLOEXEC);
  {
    Worker worker(socket_fd);
    worker.Serve();
  }
  PausePoint("worker-end");
#ifdef KEYESCROW_COVERAGE
  __gcov_dump();
#endif
  _exit(0);  // without C_Finalize and without destructors: vendors' threads crash in both
}

}  // namespace keyescrow::hsm
