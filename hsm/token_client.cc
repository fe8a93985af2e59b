#include "hsm/token_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "hsm/login_turn.h"

namespace keyescrow::hsm {
namespace {

using std::chrono::milliseconds;

Error Malformed() {
  return Error(ErrorCode::kModuleFailed, Action::kCheckSystemState,
               "the token worker's answer does not parse: the module may have damaged it",
               "try the module's own tool; update it or tell its vendor");
}

MessageWriter Request(TokenRequest request) {
  MessageWriter writer;
  writer.PutU8(static_cast<std::uint8_t>(request));
  return writer;
}

Bytes ListRequest(KeyClass key_class, std::size_t first) {
  MessageWriter writer = Request(TokenRequest::kListKeys);
  writer.PutU8(key_class == KeyClass::kPrivate ? 1 : 0);
  writer.PutU16(static_cast<std::uint16_t>(first));
  return writer.bytes();
}

// Clean makes a module's text safe to print.
std::string Clean(ByteView bytes) {
  std::string text(AsText(bytes));
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return text;
}

bool TakeText(ByteReader& reader, std::string& text) {
  const auto field = TakeField(reader, kMaxTextBytes);
  if (field) text = std::string(AsText(*field));
  return field.has_value();
}

bool TakeVersion(ByteReader& reader, std::string& version) {
  const auto major = reader.TakeU8();
  const auto minor = reader.TakeU8();
  if (minor) version = fmt::format("{}.{}", *major, *minor);
  return minor.has_value();
}

bool TakeNumber(ByteReader& reader, std::uint64_t& number) {
  const auto value = TakeU64(reader);
  if (value) number = *value;
  return value.has_value();
}

bool TakeToken(ByteReader& reader, TokenInfo& token) {
  return TakeNumber(reader, token.slot_id) && TakeText(reader, token.label) &&
         TakeText(reader, token.manufacturer) && TakeText(reader, token.model) &&
         TakeText(reader, token.serial) && TakeVersion(reader, token.firmware) &&
         TakeNumber(reader, token.flags) && TakeNumber(reader, token.min_pin_length) &&
         TakeNumber(reader, token.max_pin_length);
}

bool TakeKey(ByteReader& reader, KeyRow& key) {
  if (!TakeNumber(reader, key.handle) || !TakeNumber(reader, key.key_type)) return false;
  const auto always_authenticate = reader.TakeU8();
  if (!always_authenticate) return false;
  key.always_authenticate = *always_authenticate != 0;
  for (Bytes* value :
       {&key.id, &key.label, &key.modulus, &key.exponent, &key.ec_params, &key.ec_point}) {
    const auto field = TakeField(reader, kMaxNumberBytes);
    if (!field) return false;
    *value = ToBytes(*field);
  }
  return true;
}

}  // namespace

TokenClient::TokenClient(std::unique_ptr<WorkerProcess> worker, std::string module_path,
                         std::string module_arguments, const TokenWorkerOptions& options)
    : worker_(std::move(worker)),
      module_path_(std::move(module_path)),
      module_arguments_(std::move(module_arguments)),
      options_(options) {}

Result<std::unique_ptr<TokenClient>> TokenClient::Start(std::string module_path,
                                                        std::string_view module_arguments,
                                                        const TokenWorkerOptions& options,
                                                        std::unique_ptr<WorkerProcess> worker) {
  if (module_path.empty() || module_path.size() > kMaxPathBytes ||
      module_arguments.size() > kMaxArgumentsBytes || module_path.find('\0') != std::string::npos) {
    return Error(ErrorCode::kModuleMissing, Action::kFixInput,
                 "no PKCS#11 module is named, or its path is too long",
                 "name the token's module with --module, or in the configuration");
  }
  if (worker == nullptr) {
    ASSIGN_OR_RETURN(worker, WorkerProcess::Spawn(options));
  }
  std::unique_ptr<TokenClient> client(new TokenClient(std::move(worker), std::move(module_path),
                                                      std::string(module_arguments), options));
  client->AskForTokens();
  return client;
}

void TokenClient::AskForTokens() {
  MessageWriter load = Request(TokenRequest::kLoad);
  load.PutField(module_path_);
  load.PutField(module_arguments_);
  loaded_at_ = std::chrono::steady_clock::now();
  if (worker_->Send(load.bytes())) {
    (void)worker_->Send(Request(TokenRequest::kListTokens).bytes());
  }
}

Status TokenClient::LookAgain() {
  asked_ahead_.reset();
  report_.reset();
  worker_->Leave();
  ASSIGN_OR_RETURN(worker_, WorkerProcess::Spawn(options_));
  AskForTokens();
  return Ok();
}

// CheckReply reads the head of a reply; on an error status it returns that error.
Status TokenClient::CheckReply(TokenRequest request, ByteReader& reader) {
  const auto echoed = reader.TakeU8();
  const auto status = reader.TakeU8();
  if (!echoed || !status || *echoed != static_cast<std::uint8_t>(request)) return Malformed();
  switch (static_cast<TokenReply>(*status)) {
    case TokenReply::kOk: return Ok();
    case TokenReply::kModuleError: {
      const auto call = reader.TakeU8();
      const auto rv = TakeU64(reader);
      const auto text = TakeField(reader, kMaxTextBytes);
      if (!call || !rv || !text || !reader.AtEnd() || *call == 0 || *call > kLastTokenCall ||
          *rv == 0) {
        return Malformed();
      }
      Error error = CkrError(static_cast<TokenCall>(*call), *rv, {token_, Clean(*text)});
      return error.code() == ErrorCode::kModuleFailed
                 ? std::move(error).WithContext("module " + module_path_)
                 : std::move(error);
    }
    case TokenReply::kModuleMissing:
      return Error(ErrorCode::kModuleMissing, Action::kCheckSystemState,
                   fmt::format("the PKCS#11 module '{}' is not there", module_path_),
                   ModuleHint(module_path_));
    case TokenReply::kModuleInvalid: {
      const auto text = TakeField(reader, kMaxTextBytes);
      if (!text) return Malformed();
      return Error(ErrorCode::kModuleInvalid, Action::kFixInput,
                   fmt::format("'{}' is not a PKCS#11 module: {}", module_path_, Clean(*text)),
                   "name the vendor's PKCS#11 library for this machine's architecture");
    }
    case TokenReply::kNoMemory:
      return Error(ErrorCode::kMemoryLockLimit, Action::kCheckSystemState,
                   "the token worker cannot lock memory for a secret (RLIMIT_MEMLOCK)",
                   "raise it for this shell with 'ulimit -l 8192', or set LimitMEMLOCK=8M in the "
                   "service's unit");
    case TokenReply::kBadRequest: break;
  }
  return Malformed();
}

Result<Bytes> TokenClient::TakeReply(TokenRequest request, milliseconds deadline) {
  ASSIGN_OR_RETURN(Bytes message, worker_->Receive(deadline));
  ByteReader reader(message);
  RETURN_IF_ERROR(CheckReply(request, reader));
  message.erase(message.begin(), message.begin() + 2);
  return message;
}

Result<Bytes> TokenClient::Call(TokenRequest request, const Bytes& message,
                                const SecretBytes* secret, milliseconds deadline) {
  RETURN_IF_ERROR(DropAhead());
  RETURN_IF_ERROR(worker_->Send(message, secret));
  return TakeReply(request, deadline);
}

Status TokenClient::SendForOneUse(const Bytes& message, const KeyLogin& login) {
  RETURN_IF_ERROR(DropAhead());
  const SecretBytes no_pin;
  return worker_->Send(message, login.pin != nullptr && !login.on_reader ? login.pin : &no_pin);
}

Error TokenClient::WithTry(Error error, const KeyLogin& login) const {
  const std::string_view tried =
      login.pin != nullptr && !login.on_reader
          ? ": with the PIN for one use, so one PIN try may have been used"
          : "";
  return std::move(error).WithContext(fmt::format("token {}{}", token_, tried));
}

Result<SecretBytes> TokenClient::CallForSecret(TokenRequest request, const Bytes& message,
                                               const KeyLogin& login, bool& flag) {
  RETURN_IF_ERROR(SendForOneUse(message, login));
  auto received = worker_->ReceiveSecret(DeadlineOf(login));
  if (!received) return WithTry(std::move(received).error(), login);
  const SecretBytes reply = *std::move(received);
  ByteReader reader(reply.Expose());
  RETURN_IF_ERROR(CheckReply(request, reader));
  const auto meaning = reader.TakeU8();
  const auto secret = TakeField(reader, kMaxNumberBytes);
  if (!meaning || !secret || !reader.AtEnd()) return Malformed();
  flag = *meaning != 0;
  return SecretBytes::CopyOf(*secret);
}

Result<ModuleReport> TokenClient::Report() {
  if (!report_) report_ = ReadReport();
  return *report_;
}

Result<ModuleReport> TokenClient::ReadReport() {
  RETURN_IF_ERROR(TakeReply(TokenRequest::kLoad, options_.operation_deadline));
  ASSIGN_OR_RETURN(Bytes reply, TakeReply(TokenRequest::kListTokens, options_.operation_deadline));
  ByteReader reader(reply);
  ModuleReport report;
  if (!TakeText(reader, report.manufacturer) || !TakeText(reader, report.description) ||
      !TakeVersion(reader, report.library_version) ||
      !TakeVersion(reader, report.cryptoki_version)) {
    return Malformed();
  }
  const auto num_uninitialized = reader.TakeU32();
  const auto num_tokens = reader.TakeU16();
  if (!num_uninitialized || !num_tokens || *num_tokens > kMaxTokens) return Malformed();
  report.num_uninitialized = *num_uninitialized;
  for (std::uint16_t index = 0; index < *num_tokens; ++index) {
    TokenInfo token;
    if (!TakeToken(reader, token)) return Malformed();
    report.tokens.push_back(std::move(token));
  }
  if (!reader.AtEnd()) return Malformed();
  return report;
}

Result<Bytes> TokenClient::CallForSlot(TokenRequest request, std::uint64_t slot_id) {
  MessageWriter writer = Request(request);
  writer.PutU64(slot_id);
  return Call(request, writer.bytes(), nullptr, options_.operation_deadline);
}

Result<TokenInfo> TokenClient::ReadToken(std::uint64_t slot_id) {
  ASSIGN_OR_RETURN(const Bytes reply, CallForSlot(TokenRequest::kReadToken, slot_id));
  ByteReader reader(reply);
  TokenInfo token;
  if (!TakeToken(reader, token) || !reader.AtEnd()) return Malformed();
  return token;
}

Result<TokenInfo> TokenClient::ReadTokenLately(const TokenInfo& reported) {
  if (std::chrono::steady_clock::now() - loaded_at_ < kFresh) return reported;
  return ReadToken(reported.slot_id);
}

Result<TokenMechanisms> TokenClient::ReadMechanisms(std::uint64_t slot_id) {
  ASSIGN_OR_RETURN(const Bytes reply, CallForSlot(TokenRequest::kReadMechanisms, slot_id));
  ByteReader reader(reply);
  const auto bits = reader.TakeU8();
  if (!bits || !reader.AtEnd()) return Malformed();
  const auto has = [&](TokenMechanism mechanism) {
    return (*bits & static_cast<std::uint8_t>(mechanism)) != 0;
  };
  return TokenMechanisms{has(TokenMechanism::kRsaOaep), has(TokenMechanism::kRsaRaw),
                         has(TokenMechanism::kEcdh)};
}

Status TokenClient::OpenSession(const TokenInfo& token, bool read_write) {
  token_ = DescribeToken(token);
  MessageWriter writer = Request(TokenRequest::kOpenSession);
  writer.PutU64(token.slot_id);
  writer.PutU8(read_write ? 1 : 0);
  RETURN_IF_ERROR(DropAhead());
  RETURN_IF_ERROR(worker_->Send(writer.bytes()));
  AskAhead(KeyClass::kPublic);
  RETURN_IF_ERROR(TakeReply(TokenRequest::kOpenSession, options_.operation_deadline));
  return Ok();
}

void TokenClient::AskAhead(KeyClass key_class) {
  // A worker that is gone is told by whoever waits for the reply before this one.
  if (worker_->Send(ListRequest(key_class, 0))) asked_ahead_ = key_class;
}

Status TokenClient::DropAhead() {
  if (!asked_ahead_) return Ok();
  asked_ahead_.reset();
  RETURN_IF_ERROR(worker_->Receive(options_.operation_deadline));
  return Ok();
}

Result<std::vector<KeyRow>> TokenClient::ListKeys(KeyClass key_class) {
  std::vector<KeyRow> keys;
  // A worker may answer with one key at a time, each of them late: the list as a whole has an end.
  const auto end = std::chrono::steady_clock::now() + options_.reader_deadline;
  while (keys.size() < kMaxKeys) {
    if (asked_ahead_ != key_class || !keys.empty()) {
      RETURN_IF_ERROR(DropAhead());
      RETURN_IF_ERROR(worker_->Send(ListRequest(key_class, keys.size())));
    }
    asked_ahead_.reset();
    ASSIGN_OR_RETURN(const Bytes reply,
                     TakeReply(TokenRequest::kListKeys, std::min(options_.operation_deadline,
                                                                 milliseconds(RemainingMs(end)))));
    ByteReader reader(reply);
    const auto more = reader.TakeU8();
    const auto count = reader.TakeU16();
    if (!more || !count || *count > kMaxKeysInReply) return Malformed();
    for (std::uint16_t index = 0; index < *count; ++index) {
      KeyRow key;
      if (!TakeKey(reader, key)) return Malformed();
      keys.push_back(std::move(key));
    }
    if (!reader.AtEnd()) return Malformed();
    if (*more == 0 || *count == 0) break;
  }
  return keys;
}

Status TokenClient::Login(const SecretBytes* pin) {
  const SecretBytes no_pin;
  MessageWriter writer = Request(TokenRequest::kLogin);
  writer.PutU8(pin == nullptr ? 1 : 0);
  RETURN_IF_ERROR(DropAhead());
  // A person at a PIN pad may take a minute, and nobody else waits for them.
  std::optional<LoginTurn> turn;
  if (pin != nullptr) turn.emplace(LoginTurn::Take(module_path_));
  RETURN_IF_ERROR(worker_->Send(writer.bytes(), pin == nullptr ? &no_pin : pin));
  AskAhead(KeyClass::kPrivate);
  auto reply = TakeReply(TokenRequest::kLogin,
                         pin == nullptr ? options_.reader_deadline : options_.operation_deadline);
  turn.reset();
  if (reply) return Ok();
  Error error = std::move(reply).error();
  if (error.code() == ErrorCode::kTokenTimeout ||
      (error.code() == ErrorCode::kModuleFailed && error.native_domain().empty())) {
    return std::move(error).WithContext(
        fmt::format("token {}: while logging in, so one PIN try may have been used", token_));
  }
  return error;
}

Result<SecretBytes> TokenClient::DecryptRsa(std::uint64_t key, OaepHash hash, ByteView ciphertext,
                                            const KeyLogin& login) {
  MessageWriter writer = Request(TokenRequest::kDecryptRsa);
  writer.PutU64(key);
  writer.PutU8(hash == OaepHash::kSha1 ? 0 : 1);
  writer.PutField(ciphertext);
  writer.PutU8(login.on_reader ? 2 : login.pin != nullptr ? 1 : 0);
  bool raw = false;
  ASSIGN_OR_RETURN(SecretBytes output,
                   CallForSecret(TokenRequest::kDecryptRsa, writer.bytes(), login, raw));
  if (!raw) return output;
  if (output.size() > ciphertext.size()) return Malformed();
  if (output.size() == ciphertext.size()) return RemoveOaepPadding(hash, output);
  // Some modules drop the block's leading zeros.
  ASSIGN_OR_RETURN(SecretBytes block, SecretBytes::Allocate(ciphertext.size()));
  if (!output.empty()) {
    std::memcpy(block.ExposeMutable().data() + (block.size() - output.size()),
                output.Expose().data(), output.size());
  }
  return RemoveOaepPadding(hash, block);
}

Result<SecretBytes> TokenClient::DeriveEcdh(std::uint64_t key, ByteView point,
                                            std::string_view shared_info, const KeyLogin& login,
                                            bool& is_s) {
  MessageWriter writer = Request(TokenRequest::kDeriveEcdh);
  writer.PutU64(key);
  writer.PutField(point);
  writer.PutField(shared_info);
  writer.PutU8(login.on_reader ? 2 : login.pin != nullptr ? 1 : 0);
  return CallForSecret(TokenRequest::kDeriveEcdh, writer.bytes(), login, is_s);
}

Result<Bytes64> TokenClient::SignEcdsa(std::uint64_t key, const Bytes32& digest,
                                       const KeyLogin& login) {
  MessageWriter writer = Request(TokenRequest::kSign);
  writer.PutU64(key);
  writer.PutField(digest);
  writer.PutU8(login.on_reader ? 2 : login.pin != nullptr ? 1 : 0);
  RETURN_IF_ERROR(SendForOneUse(writer.bytes(), login));
  auto received = worker_->Receive(DeadlineOf(login));
  if (!received) return WithTry(std::move(received).error(), login);
  ByteReader reader(*received);
  RETURN_IF_ERROR(CheckReply(TokenRequest::kSign, reader));
  const auto signature = TakeField(reader, kSignatureBytes);
  if (!signature || signature->size() != kSignatureBytes || !reader.AtEnd()) return Malformed();
  Bytes64 result;
  std::copy(signature->begin(), signature->end(), result.begin());
  return result;
}

Result<Bytes> TokenClient::ReadEvidence(std::uint64_t key) {
  MessageWriter writer = Request(TokenRequest::kReadEvidence);
  writer.PutU64(key);
  ASSIGN_OR_RETURN(Bytes reply, Call(TokenRequest::kReadEvidence, writer.bytes(), nullptr,
                                     options_.operation_deadline));
  ByteReader reader(reply);
  const auto booleans = TakeField(reader, kNumEvidenceBooleans);
  if (!booleans || booleans->size() != kNumEvidenceBooleans || !reader.AtEnd()) return Malformed();
  return ToBytes(*booleans);
}

Status TokenClient::GenerateKeyPair(std::uint8_t kind, ByteView id, std::string_view label) {
  MessageWriter writer = Request(TokenRequest::kGenerate);
  writer.PutU8(kind);
  writer.PutField(id);
  writer.PutField(label);
  // A smart card needs a minute for RSA-3072.
  RETURN_IF_ERROR(Call(TokenRequest::kGenerate, writer.bytes(), nullptr, options_.reader_deadline));
  return Ok();
}

std::string ModuleHint(std::string_view module_path) {
  struct KnownModule {
    std::string_view file;
    std::string_view package;
  };
  constexpr KnownModule kKnown[] = {
      {"libsofthsm2.so", "softhsm2"},
      {"opensc-pkcs11.so", "opensc-pkcs11"},
      {"libykcs11.so", "ykcs11"},
      {"libsoftokn3.so", "libnss3"},
      {"libtpm2_pkcs11.so", "libtpm2-pkcs11-1"},
      {"libopencryptoki.so", "opencryptoki"},
      {"yubihsm_pkcs11.so", "yubihsm-pkcs11"},
      {"p11-kit-client.so", "p11-kit-modules"},
  };
  const std::string_view file = module_path.substr(module_path.rfind('/') + 1);
  for (const KnownModule& known : kKnown) {
    if (file.starts_with(known.file)) {
      return fmt::format("install it ('apt install {}') or correct the module's path",
                         known.package);
    }
  }
  return "install the token vendor's PKCS#11 library or correct the module's path";
}

}  // namespace keyescrow::hsm
