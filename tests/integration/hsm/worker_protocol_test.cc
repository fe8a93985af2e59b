// The two ends of the worker's protocol, each against one that does not keep to it: what does not
// parse, is too large or comes out of turn is refused by name.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>

#include "hsm/token_client.h"
#include "hsm/token_protocol.h"
#include "hsm/worker_process.h"
#include "tests/integration/hsm/harness.h"
#include "tests/slowness.h"

namespace keyescrow::hsm {
namespace {

using simulators::SoftHsmFixture;
using std::chrono::seconds;

MessageWriter Message(TokenRequest request) {
  MessageWriter writer;
  writer.PutU8(static_cast<std::uint8_t>(request));
  return writer;
}

MessageWriter Reply(TokenRequest request, TokenReply status = TokenReply::kOk) {
  MessageWriter writer = Message(request);
  writer.PutU8(static_cast<std::uint8_t>(status));
  return writer;
}

void PutToken(MessageWriter& writer, std::size_t label_size = 3, std::size_t text_size = 4) {
  writer.PutU64(7);
  writer.PutField(std::string(label_size, 'o'));
  for (int text = 0; text < 3; ++text) writer.PutField(std::string(text_size, 't'));
  writer.PutU16(0x0100);
  for (const std::uint64_t number : {4, 1, 0x100}) writer.PutU64(number);
}

Bytes Tokens(std::uint16_t count, std::size_t label_size = 3, std::size_t text_size = 4,
             std::size_t maker_size = 5) {
  MessageWriter writer = Reply(TokenRequest::kListTokens);
  writer.PutField(std::string(maker_size, 'm'));
  writer.PutField("module");
  writer.PutU32(0x01000228);  // two versions
  writer.PutU32(0);
  writer.PutU16(count);
  for (int token = 0; token < count; ++token) PutToken(writer, label_size, text_size);
  return writer.bytes();
}

Bytes Keys(std::uint16_t count, bool more = false, std::size_t modulus_size = 256) {
  MessageWriter writer = Reply(TokenRequest::kListKeys);
  writer.PutU8(more ? 1 : 0);
  writer.PutU16(count);
  for (int key = 0; key < count; ++key) {
    writer.PutU64(1);
    writer.PutU64(0);
    writer.PutU8(0);
    for (const std::size_t size : {std::size_t{1}, std::size_t{3}, modulus_size, std::size_t{3},
                                   std::size_t{0}, std::size_t{0}}) {
      writer.PutField(Bytes(size, 'x'));
    }
  }
  return writer.bytes();
}

// WithField is a reply of one field, behind a byte of meaning where it is a secret.
Bytes WithField(TokenRequest request, std::size_t size, bool is_secret = false) {
  MessageWriter writer = Reply(request);
  if (is_secret) writer.PutU8(0);
  writer.PutField(Bytes(size, 1));
  return writer.bytes();
}

Bytes Failure(TokenRequest request, std::uint8_t call, std::uint64_t rv) {
  MessageWriter writer = Reply(request, TokenReply::kModuleError);
  writer.PutU8(call);
  writer.PutU64(rv);
  writer.PutField("text");
  return writer.bytes();
}

Bytes And(Bytes bytes, std::uint8_t byte) {
  bytes.push_back(byte);
  return bytes;
}

// Manner: how the replies come: what stands before each of their lines, and behind the last
// (main.cc).
struct Manner {
  std::string each = {};
  std::string end = {};
  TokenWorkerOptions options = {};
};

// A worker of this program's that answers each request with the next of `replies` (main.cc), the
// first two of which, to load and list, are as they should be.
class WorkerReplies : public testing::Test {
 protected:
  using Use = std::function<Status(TokenClient&)>;

  template <typename T>
  static Status StatusOf(const Result<T>& result) {
    return result ? Ok() : Status(tl::unexpected(result.error()));
  }

  static Status Answered(const std::vector<Bytes>& replies, const Use& use, bool listed = true,
                         const Manner& manner = {}) {
    const std::string script = testing::TempDir() + "keyescrow-replies-" + std::to_string(getpid());
    {
      std::ofstream file(script);
      if (listed) file << "0100\n" << ToHex(Tokens(1)) << "\n";
      for (const Bytes& reply : replies) file << manner.each << ToHex(reply) << "\n";
      file << manner.end;
    }
    setenv("KEYESCROW_TEST_REPLIES", script.c_str(), 1);
    auto client = TokenClient::Start("/lib/module.so", "", manner.options);
    unsetenv("KEYESCROW_TEST_REPLIES");
    if (!client) return std::move(client).error();
    if (listed) {
      EXPECT_TRUE((*client)->Report());
    }
    Status status = use(**client);
    std::filesystem::remove(script);  // the worker has opened it
    return status;
  }
  static void ExpectRefused(const Bytes& reply, const Use& use, const std::string& what) {
    const Status status = Answered({reply}, use);
    ASSERT_FALSE(status) << what;
    EXPECT_EQ(status.error().code(), ErrorCode::kModuleFailed) << what;
    EXPECT_NE(status.error().message().find("does not parse"), std::string::npos)
        << what << ": " << status.error().message();
  }
};

const SecretBytes& Pin() {
  static const auto* const pin = new SecretBytes(*SecretBytes::CopyOf(AsBytes(kPin)));
  return *pin;
}

struct Row {
  TokenRequest request;
  Bytes good;
  std::function<Status(TokenClient&)> use;
};

TEST_F(WorkerReplies, AreTakenWholeAndForTheirRequestAlone) {
  bool is_s = false;
  MessageWriter token = Reply(TokenRequest::kReadToken);
  PutToken(token);
  const Row rows[] = {
      {TokenRequest::kReadToken, token.bytes(),
       [](TokenClient& client) { return StatusOf(client.ReadToken(7)); }},
      {TokenRequest::kReadMechanisms, And(Reply(TokenRequest::kReadMechanisms).bytes(), 7),
       [](TokenClient& client) { return StatusOf(client.ReadMechanisms(7)); }},
      {TokenRequest::kListKeys, Keys(2),
       [](TokenClient& client) { return StatusOf(client.ListKeys(KeyClass::kPublic)); }},
      {TokenRequest::kDecryptRsa, WithField(TokenRequest::kDecryptRsa, 32, true),
       [](TokenClient& client) {
         return StatusOf(client.DecryptRsa(1, OaepHash::kSha256, Bytes(256, 1), {}));
       }},
      {TokenRequest::kDeriveEcdh, WithField(TokenRequest::kDeriveEcdh, 32, true),
       [&](TokenClient& client) {
         return StatusOf(client.DeriveEcdh(1, Bytes(65, 4), "", {}, is_s));
       }},
      {TokenRequest::kReadEvidence, WithField(TokenRequest::kReadEvidence, kNumEvidenceBooleans),
       [](TokenClient& client) { return StatusOf(client.ReadEvidence(1)); }},
      {TokenRequest::kSign, WithField(TokenRequest::kSign, kSignatureBytes),
       [](TokenClient& client) { return StatusOf(client.SignEcdsa(1, Bytes32{}, {})); }},
      {TokenRequest::kGenerate, Reply(TokenRequest::kGenerate).bytes(),
       [](TokenClient& client) { return client.GenerateKeyPair(0, Bytes{1}, "x"); }},
      {TokenRequest::kLogin, Reply(TokenRequest::kLogin).bytes(),
       [](TokenClient& client) { return client.Login(&Pin()); }},
      {TokenRequest::kOpenSession, Reply(TokenRequest::kOpenSession).bytes(),
       [](TokenClient& client) { return client.OpenSession({}); }},
  };
  for (const Row& row : rows) {
    const auto name = std::to_string(static_cast<int>(row.request));
    EXPECT_TRUE(Answered({row.good}, row.use)) << name;
    for (std::size_t size = 1; size < row.good.size(); size += size < 24 ? 1 : 97) {
      ExpectRefused(Bytes(row.good.begin(), row.good.begin() + static_cast<std::ptrdiff_t>(size)),
                    row.use, name + " cut to " + std::to_string(size));
    }
    if (row.good.size() > 2) ExpectRefused(And(row.good, 0), row.use, name + " and one more");
    Bytes other = row.good;
    other[0] = static_cast<std::uint8_t>(other[0] ^ 1);
    ExpectRefused(other, row.use, name + " of another");
    for (const int status : {5, 6, 255}) {
      const Bytes reply = {static_cast<std::uint8_t>(row.request),
                           static_cast<std::uint8_t>(status)};
      ExpectRefused(reply, row.use, name + ", status " + std::to_string(status));
    }
  }
}

TEST_F(WorkerReplies, HoldNoMoreThanTheirLimits) {
  const Use report = [](TokenClient& client) { return StatusOf(client.Report()); };
  const auto listed = [&](const Bytes& reply) {
    return Answered({Bytes{1, 0}, reply}, report, false);
  };
  EXPECT_TRUE(listed(Tokens(kMaxTokens)));
  EXPECT_FALSE(listed(Tokens(kMaxTokens + 1)));
  EXPECT_TRUE(listed(Tokens(2, kMaxTextBytes)));
  EXPECT_FALSE(listed(Tokens(2, kMaxTextBytes + 1)));
  EXPECT_FALSE(listed(And(Tokens(2), 0)));
  // As large as a message may be, and a byte larger: that the last one is a zero helps nobody.
  ASSERT_EQ(Tokens(64, 20, 320, 106).size(), kMaxReplyBytes);
  EXPECT_TRUE(listed(Tokens(64, 20, 320, 106)));
  EXPECT_FALSE(listed(Tokens(64, 20, 320, 107)));

  const Use keys = [](TokenClient& client) { return StatusOf(client.ListKeys(KeyClass::kPublic)); };
  EXPECT_TRUE(Answered({Keys(kMaxKeysInReply)}, keys));
  ExpectRefused(Keys(kMaxKeysInReply + 1), keys, "17 keys");
  EXPECT_TRUE(Answered({Keys(1, false, kMaxNumberBytes)}, keys));
  ExpectRefused(Keys(1, false, kMaxNumberBytes + 1), keys, "a number of 1101 bytes");
  EXPECT_TRUE(Answered({Keys(0, true)}, keys)) << "none, and more to come";
  EXPECT_TRUE(Answered(std::vector<Bytes>(kMaxKeys / kMaxKeysInReply, Keys(16, true, 1)), keys));

  bool is_s = false;
  const Use derive = [&](TokenClient& client) {
    return StatusOf(client.DeriveEcdh(1, Bytes(65, 4), "", {}, is_s));
  };
  EXPECT_TRUE(Answered({WithField(TokenRequest::kDeriveEcdh, kMaxNumberBytes, true)}, derive));
  ExpectRefused(WithField(TokenRequest::kDeriveEcdh, kMaxNumberBytes + 1, true), derive, "1101");
  EXPECT_FALSE(
      Answered({WithField(TokenRequest::kDeriveEcdh, kMaxSecretReplyBytes, true)}, derive));
  EXPECT_FALSE(Answered({Bytes{}}, derive)) << "nothing";

  const Use evidence = [](TokenClient& client) { return StatusOf(client.ReadEvidence(1)); };
  const Use sign = [](TokenClient& client) { return StatusOf(client.SignEcdsa(1, Bytes32{}, {})); };
  for (const int off : {-1, 1}) {
    const auto near = [off](std::size_t size) { return size + static_cast<std::size_t>(off); };
    ExpectRefused(WithField(TokenRequest::kReadEvidence, near(kNumEvidenceBooleans)), evidence,
                  "evidence");
    ExpectRefused(WithField(TokenRequest::kSign, near(kSignatureBytes)), sign, "a signature");
  }
}

// WithinSeconds runs `use`; a worker that it still waits for then is killed, which is a failure.
Status WithinSeconds(int limit, TokenClient& client, const std::function<Status()>& use) {
  std::promise<void> done;
  auto watch = std::async(std::launch::async, [&, pid = client.worker_pid()] {
    if (done.get_future().wait_for(seconds(limit * kSlowness)) == std::future_status::ready) return;
    ADD_FAILURE() << "the agent still waits";
    kill(pid, SIGKILL);
  });
  Status status = use();
  done.set_value();
  watch.get();
  return status;
}

TEST_F(WorkerReplies, ThatComeUnaskedHoldNobodyUp) {
  // Nothing that is asked is read: what the socket holds for such a worker has an end.
  const Use keys = [](TokenClient& client) {
    return WithinSeconds(10, client, [&] { return StatusOf(client.ListKeys(KeyClass::kPublic)); });
  };
  const Status status = Answered(std::vector<Bytes>(kMaxKeys, Keys(1, true, 1)), keys, true,
                                 {.each = "+", .end = "!\n"});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kModuleFailed) << status.error().message();
}

TEST_F(WorkerReplies, ThatComeSlowlyEndWithTheWholeListsDeadline) {
  Manner slow{.each = "~", .end = "!\n"};
  slow.options.operation_deadline = seconds(5);
  slow.options.reader_deadline = seconds(2);
  const Use keys = [](TokenClient& client) {
    return WithinSeconds(10, client, [&] { return StatusOf(client.ListKeys(KeyClass::kPublic)); });
  };
  const Status status = Answered(std::vector<Bytes>(100, Keys(1, true, 1)), keys, true, slow);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kTokenTimeout) << status.error().message();
}

TEST_F(WorkerReplies, TellAFailureOfACallThatThereIs) {
  const Use evidence = [](TokenClient& client) { return StatusOf(client.ReadEvidence(1)); };
  const auto failure = [](std::uint8_t call, std::uint64_t rv) {
    return Failure(TokenRequest::kReadEvidence, call, rv);
  };
  const Status removed = Answered({failure(1, 0x32)}, evidence);  // CKR_DEVICE_REMOVED
  ASSERT_FALSE(removed);
  EXPECT_EQ(removed.error().code(), ErrorCode::kTokenRemoved);
  ExpectRefused(failure(0, 0x32), evidence, "no call");
  ExpectRefused(failure(kLastTokenCall + 1, 0x32), evidence, "no call of ours");
  ExpectRefused(failure(1, 0), evidence, "CKR_OK");
  ExpectRefused(And(failure(1, 0x32), 0), evidence, "and one more");
  const Bytes whole = failure(1, 0x32);
  for (std::size_t size = 2; size < whole.size(); ++size) {
    ExpectRefused(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)), evidence,
                  "cut to " + std::to_string(size));
  }
  ExpectRefused(Reply(TokenRequest::kReadEvidence, TokenReply::kModuleInvalid).bytes(), evidence,
                "without its text");
}

TEST_F(WorkerReplies, AreNotAskedForWithAPathThatIsNone) {
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {std::string(kMaxPathBytes + 1, 'm'), ""},
      {std::string("/lib/module.so\0x", 16), ""},
      {"/lib/module.so", std::string(kMaxArgumentsBytes + 1, 'a')}};
  for (const auto& [path, arguments] : cases) {
    const auto client = TokenClient::Start(path, arguments, {});
    ASSERT_FALSE(client) << path.size() << " " << arguments.size();
    EXPECT_EQ(client.error().code(), ErrorCode::kModuleMissing);
  }
}

// A worker that is asked what no agent asks.
class WorkerRequests : public testing::Test {
 protected:
  void SetUp() override {
    fixture_.AddToken("ops", kPin);
    faults_ = std::make_unique<Faults>(fixture_, "");
    worker_ = *WorkerProcess::Spawn({});
  }

  // Ask returns the status of the reply, -1 where the worker ends.
  int Ask(const Bytes& request) {
    if (!worker_->Send(request)) return -1;
    const auto reply = worker_->Receive(seconds(20));
    if (!reply) return -1;
    EXPECT_GE(reply->size(), 2U);
    EXPECT_EQ(reply->at(0), request.at(0));
    return reply->at(1);
  }
  int Load() {
    MessageWriter writer = Message(TokenRequest::kLoad);
    writer.PutField(SoftHsmFixture::FaultyModulePath());
    writer.PutField("");
    return Ask(writer.bytes());
  }

  static constexpr int kOk = 0, kMissing = 2, kBad = 5;
  SoftHsmFixture fixture_;
  std::unique_ptr<Faults> faults_;
  std::unique_ptr<WorkerProcess> worker_;
};

MessageWriter LoadOf(std::size_t path_size, std::size_t arguments_size) {
  MessageWriter writer = Message(TokenRequest::kLoad);
  writer.PutField(std::string(path_size, 'm'));
  writer.PutField(std::string(arguments_size, 'a'));
  return writer;
}

TEST_F(WorkerRequests, AreAnsweredInTheirTurnAlone) {
  EXPECT_EQ(Ask({static_cast<std::uint8_t>(TokenRequest::kListTokens)}), kMissing);
  EXPECT_EQ(Ask(LoadOf(kMaxPathBytes, kMaxArgumentsBytes).bytes()), kMissing);
  EXPECT_EQ(Ask(LoadOf(kMaxPathBytes + 1, 0).bytes()), kBad);
  EXPECT_EQ(Ask(LoadOf(3, kMaxArgumentsBytes + 1).bytes()), kBad);
  EXPECT_EQ(Ask(And(LoadOf(3, 3).bytes(), 0)), kBad);
  EXPECT_EQ(Ask({1, 0, 3, 'm'}), kBad);
  ASSERT_EQ(Load(), kOk);
  EXPECT_EQ(Load(), kBad) << "a second module";
  EXPECT_EQ(faults_->NumCalls("C_Initialize"), 1);
  for (const int request : {0, 5, 6, 7, 8, 9, 10, 13, 14, 255}) {
    EXPECT_EQ(Ask(And({}, static_cast<std::uint8_t>(request))), kBad) << request;
  }
  MessageWriter evidence = Message(TokenRequest::kReadEvidence);
  evidence.PutU64(1);
  EXPECT_EQ(Ask(evidence.bytes()), kBad) << "without a session";
  EXPECT_EQ(Ask({static_cast<std::uint8_t>(TokenRequest::kListTokens)}), kOk);
  EXPECT_EQ(Ask({static_cast<std::uint8_t>(TokenRequest::kListTokens), 0}), kBad);
  EXPECT_EQ(Ask(Bytes(kMaxRequestBytes + 1, 2)), -1) << "too large: it ends";
}

TEST_F(WorkerRequests, AreRefusedWhereTheyDoNotParse) {
  ASSERT_EQ(Load(), kOk);
  MessageWriter open = Message(TokenRequest::kOpenSession);
  auto keys = Message(TokenRequest::kListKeys), login = Message(TokenRequest::kLogin),
       decrypt = Message(TokenRequest::kDecryptRsa), derive = Message(TokenRequest::kDeriveEcdh),
       sign = Message(TokenRequest::kSign), evidence = Message(TokenRequest::kReadEvidence),
       generate = Message(TokenRequest::kGenerate), token = Message(TokenRequest::kReadToken),
       mechanisms = Message(TokenRequest::kReadMechanisms);
  std::uint64_t slot = 0;
  {
    ASSERT_TRUE(worker_->Send(Message(TokenRequest::kListTokens).bytes()));
    const auto reply = worker_->Receive(seconds(20));
    ASSERT_TRUE(reply);
    ByteReader reader(*reply);
    reader.Take(2);
    for (int text = 0; text < 2; ++text) ASSERT_TRUE(TakeField(reader, kMaxTextBytes));
    reader.Take(4 + 4 + 2);
    slot = *TakeU64(reader);
  }
  open.PutU64(slot);
  open.PutU8(0);
  token.PutU64(slot);
  mechanisms.PutU64(slot);
  keys.PutU8(0);
  keys.PutU16(0);
  login.PutU8(0);
  login.PutField("000000");
  decrypt.PutU64(99);
  decrypt.PutU8(0);
  decrypt.PutField(Bytes(256, 1));
  decrypt.PutU8(0);
  decrypt.PutField("");
  derive.PutU64(99);
  derive.PutField(Bytes(65, 4));
  derive.PutField("");
  derive.PutU8(0);
  derive.PutField("");
  sign.PutU64(99);
  sign.PutField(Bytes(32, 1));
  sign.PutU8(0);
  sign.PutField("");
  evidence.PutU64(99);
  generate.PutU8(2);
  generate.PutField(Bytes(1, 1));
  generate.PutField("x");
  ASSERT_EQ(Ask(open.bytes()), kOk);
  const int num_logins = faults_->NumCalls("C_Login");
  for (const MessageWriter* writer : {&open, &token, &mechanisms, &keys, &login, &decrypt, &derive,
                                      &sign, &evidence, &generate}) {
    const Bytes& whole = writer->bytes();
    for (std::size_t size = 1; size < whole.size(); size += size < 16 ? 1 : 31) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_EQ(Ask(cut), kBad) << int{whole[0]} << " cut to " << size;
    }
    EXPECT_EQ(Ask(And(whole, 0)), kBad) << int{whole[0]} << " and one more";
  }
  const auto login_of = [](std::uint8_t on_reader, std::size_t size) {
    MessageWriter writer = Message(TokenRequest::kLogin);
    writer.PutU8(on_reader);
    writer.PutField(std::string(size, '0'));
    return writer.bytes();
  };
  EXPECT_EQ(Ask(login_of(0, 0)), kBad) << "an empty PIN";
  EXPECT_EQ(Ask(login_of(1, 6)), kBad) << "a PIN for a reader with a pad";
  EXPECT_EQ(Ask(login_of(0, kMaxPinBytes + 1)), kBad);
  EXPECT_EQ(faults_->NumCalls("C_Login"), num_logins);
  const auto with = [](TokenRequest request, std::size_t first, std::size_t second) {
    MessageWriter writer = Message(request);
    if (request == TokenRequest::kGenerate) writer.PutU8(2);
    if (request != TokenRequest::kGenerate) writer.PutU64(99);
    if (request == TokenRequest::kDecryptRsa) writer.PutU8(0);
    writer.PutField(Bytes(first, 1));
    if (request == TokenRequest::kDeriveEcdh || request == TokenRequest::kGenerate) {
      writer.PutField(Bytes(second, 1));
    }
    if (request == TokenRequest::kGenerate) return writer.bytes();
    writer.PutU8(0);
    writer.PutField("");
    return writer.bytes();
  };
  EXPECT_EQ(Ask(with(TokenRequest::kDecryptRsa, kMaxNumberBytes + 1, 0)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kDeriveEcdh, 64, 0)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kDeriveEcdh, 66, 0)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kDeriveEcdh, 65, kMaxTextBytes + 1)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kSign, 31, 0)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kSign, 33, 0)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kGenerate, kMaxIdBytes + 1, 1)), kBad);
  EXPECT_EQ(Ask(with(TokenRequest::kGenerate, 1, kMaxIdBytes + 1)), kBad);
  Bytes other_kind = generate.bytes();
  other_kind[1] = 3;
  EXPECT_EQ(Ask(other_kind), kBad);
  for (const char* function : {"C_DecryptInit", "C_DeriveKey", "C_SignInit", "C_GenerateKeyPair"}) {
    EXPECT_EQ(faults_->NumCalls(function), 0) << function;
  }
  EXPECT_EQ(Ask(keys.bytes()), kOk) << "it still serves";
}

}  // namespace
}  // namespace keyescrow::hsm
