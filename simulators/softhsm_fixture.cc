#include "simulators/softhsm_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "hsm/module_session.h"
#include "hsm/token_location.h"

namespace keyescrow::simulators {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "softhsm fixture: %s\n", what.c_str());
  std::abort();
}

void Check(CK_RV rv, const char* call) {
  if (rv != CKR_OK) Die(std::string(call) + " failed: " + std::to_string(rv));
}

CK_BYTE* Text(const std::string& text) {
  return reinterpret_cast<CK_BYTE*>(const_cast<char*>(text.data()));
}

std::string Padded(const std::string& text, std::size_t size) {
  return text + std::string(size - text.size(), ' ');
}

// InChild runs `body` in a child process, so that SoftHSM is never mapped into the test's own, and
// returns what it wrote.
Bytes InChild(const std::function<Bytes(hsm::Module&)>& body) {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) Die("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(pipe_fds[0]);
    hsm::Module module;
    if (module.Load(SoftHsmFixture::ModulePath(), "") != hsm::LoadOutcome::kLoaded) {
      Die("cannot load " + SoftHsmFixture::ModulePath() + ": " + module.reason());
    }
    CK_INFO info{};
    Check(module->C_GetInfo(&info), "C_GetInfo");
    if (std::memcmp(info.manufacturerID, "SoftHSM", 7) != 0) Die("this module is not SoftHSM");
    const Bytes result = body(module);
    const bool written =
        write(pipe_fds[1], result.data(), result.size()) == static_cast<ssize_t>(result.size());
    _exit(written ? 0 : 1);
  }
  close(pipe_fds[1]);
  Bytes result(8192);
  std::size_t total = 0;
  ssize_t size = 0;
  while ((size = read(pipe_fds[0], result.data() + total, result.size() - total)) > 0) {
    total += static_cast<std::size_t>(size);
  }
  close(pipe_fds[0]);
  result.resize(total);
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    Die("the child that prepares a token failed");
  }
  return result;
}

// FindSlot returns the slot of the first token with `label`, or of an uninitialised one for "".
CK_SLOT_ID FindSlot(hsm::Module& module, const std::string& label) {
  CK_SLOT_ID slots[128];
  CK_ULONG count = 128;
  Check(module->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList");
  for (CK_ULONG index = 0; index < count; ++index) {
    CK_TOKEN_INFO info{};
    Check(module->C_GetTokenInfo(slots[index], &info), "C_GetTokenInfo");
    const bool initialized = (info.flags & CKF_TOKEN_INITIALIZED) != 0;
    if (label.empty() ? !initialized
                      : initialized && Padded(label, 32) ==
                                           std::string(reinterpret_cast<char*>(info.label), 32)) {
      return slots[index];
    }
  }
  Die("no token '" + label + "'");
}

// FindKeyObject opens a session on the token, logs in, and finds the only key of that class and id.
std::pair<CK_SESSION_HANDLE, CK_OBJECT_HANDLE> FindKeyObject(hsm::Module& module,
                                                             const std::string& token_label,
                                                             const std::string& pin,
                                                             CK_OBJECT_CLASS object_class,
                                                             std::uint8_t id) {
  CK_SESSION_HANDLE session = 0;
  Check(module->C_OpenSession(FindSlot(module, token_label), CKF_SERIAL_SESSION | CKF_RW_SESSION,
                              nullptr, nullptr, &session),
        "C_OpenSession");
  Check(module->C_Login(session, CKU_USER, Text(pin), pin.size()), "C_Login");
  CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &object_class, sizeof object_class}, {CKA_ID, &id, 1}};
  Check(module->C_FindObjectsInit(session, wanted, 2), "C_FindObjectsInit");
  CK_OBJECT_HANDLE key = 0;
  CK_ULONG count = 0;
  Check(module->C_FindObjects(session, &key, 1, &count), "C_FindObjects");
  Check(module->C_FindObjectsFinal(session), "C_FindObjectsFinal");
  if (count != 1) Die("the key is not there");
  return {session, key};
}

}  // namespace

SoftHsmFixture::SoftHsmFixture() {
  std::string pattern = (fs::temp_directory_path() / "keyescrow-softhsm-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) Die("no temporary folder");
  folder_ = pattern;
  fs::create_directory(folder_ + "/tokens");
  const std::string conf = folder_ + "/softhsm2.conf";
  std::ofstream(conf) << "directories.tokendir = " << folder_ << "/tokens\n"
                      << "objectstore.backend = file\nlog.level = ERROR\n"
                      << "slots.removable = true\n";
  if (const char* previous = std::getenv("SOFTHSM2_CONF")) previous_conf_ = previous;
  setenv("SOFTHSM2_CONF", conf.c_str(), 1);
}

SoftHsmFixture::~SoftHsmFixture() {
  if (previous_conf_) {
    setenv("SOFTHSM2_CONF", previous_conf_->c_str(), 1);
  } else {
    unsetenv("SOFTHSM2_CONF");
  }
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string SoftHsmFixture::ModulePath() {
  for (const char* path :
       {"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"}) {
    if (fs::exists(path)) return path;
  }
  Die("SoftHSM is not installed (apt install softhsm2)");
}

void SoftHsmFixture::AddToken(const std::string& label, const std::string& pin,
                              const std::string& so_pin) {
  InChild([&](hsm::Module& module) {
    const CK_SLOT_ID free_slot = FindSlot(module, "");
    Check(module->C_InitToken(free_slot, Text(so_pin), so_pin.size(), Text(Padded(label, 32))),
          "C_InitToken");
    // SoftHSM renumbers the slot only when it is loaded again, so this number still holds.
    CK_SESSION_HANDLE session = 0;
    Check(module->C_OpenSession(free_slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, nullptr, nullptr,
                                &session),
          "C_OpenSession");
    Check(module->C_Login(session, CKU_SO, Text(so_pin), so_pin.size()), "C_Login");
    Check(module->C_InitPIN(session, Text(pin), pin.size()), "C_InitPIN");
    Check(module->C_Finalize(nullptr), "C_Finalize");
    return Bytes();
  });
}

Bytes SoftHsmFixture::Generate(const std::string& token_label, const std::string& pin,
                               std::uint8_t id, std::uint8_t kind, const std::string& label) {
  return InChild([&](hsm::Module& module) {
    hsm::ModuleSession session(module);
    if (session.Open(FindSlot(module, token_label), true)) Die("C_OpenSession failed");
    auto secret_pin = SecretBytes::CopyOf(AsBytes(pin));
    if (!secret_pin || session.Login(&*secret_pin)) Die("C_Login failed");
    if (auto failure = session.GenerateKeyPair(kind, ByteView(&id, 1), AsBytes(label))) {
      Die("C_GenerateKeyPair failed: " + std::to_string(failure->rv));
    }
    std::vector<hsm::KeyRow> keys;
    bool more = false;
    if (session.ListKeys(CKO_PUBLIC_KEY, 0, keys, more)) Die("C_FindObjects failed");
    for (const hsm::KeyRow& key : keys) {
      if (key.id == Bytes{id}) return hsm::PublicKeyOf(key).spki;
    }
    Die("the new key is not there");
  });
}

Bytes SoftHsmFixture::GenerateRsa(const std::string& token_label, const std::string& pin,
                                  std::uint8_t id, unsigned bits, const std::string& label) {
  return Generate(token_label, pin, id, bits == 2048 ? 0 : 1, label);
}

Bytes SoftHsmFixture::GenerateP256(const std::string& token_label, const std::string& pin,
                                   std::uint8_t id, const std::string& label) {
  return Generate(token_label, pin, id, 2, label);
}

Bytes SoftHsmFixture::GenerateSigningP256(const std::string& token_label, const std::string& pin,
                                          std::uint8_t id, const std::string& label) {
  const Bytes spki = GenerateP256(token_label, pin, id, label);
  InChild([&](hsm::Module& module) {
    const auto [session, key] = FindKeyObject(module, token_label, pin, CKO_PRIVATE_KEY, id);
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE sign{CKA_SIGN, &yes, sizeof yes};
    Check(module->C_SetAttributeValue(session, key, &sign, 1), "C_SetAttributeValue");
    Check(module->C_Finalize(nullptr), "C_Finalize");
    return Bytes();
  });
  return spki;
}

Bytes SoftHsmFixture::GenerateAlwaysAuthenticating(const std::string& token_label,
                                                   const std::string& pin, std::uint8_t id,
                                                   bool p256) {
  return InChild([&](hsm::Module& module) {
    CK_SESSION_HANDLE session = 0;
    Check(module->C_OpenSession(FindSlot(module, token_label), CKF_SERIAL_SESSION | CKF_RW_SESSION,
                                nullptr, nullptr, &session),
          "C_OpenSession");
    Check(module->C_Login(session, CKU_USER, Text(pin), pin.size()), "C_Login");
    CK_BYTE curve[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG bits = 2048;
    const CK_ATTRIBUTE size_or_curve = p256 ? CK_ATTRIBUTE{CKA_EC_PARAMS, curve, sizeof curve}
                                            : CK_ATTRIBUTE{CKA_MODULUS_BITS, &bits, sizeof bits};
    CK_ATTRIBUTE public_key[] = {{CKA_TOKEN, &yes, 1}, {CKA_ID, &id, 1}, size_or_curve};
    CK_ATTRIBUTE private_key[] = {{CKA_TOKEN, &yes, 1},   {CKA_PRIVATE, &yes, 1},
                                  {CKA_ID, &id, 1},       {CKA_ALWAYS_AUTHENTICATE, &yes, 1},
                                  {CKA_DECRYPT, &yes, 1}, {CKA_DERIVE, p256 ? &yes : &no, 1},
                                  {CKA_SIGN, &yes, 1}};
    CK_MECHANISM mechanism{
        static_cast<CK_MECHANISM_TYPE>(p256 ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN),
        nullptr, 0};
    CK_OBJECT_HANDLE handles[2] = {};
    Check(module->C_GenerateKeyPair(session, &mechanism, public_key, std::size(public_key),
                                    private_key, std::size(private_key), &handles[0], &handles[1]),
          "C_GenerateKeyPair");
    Check(module->C_CloseSession(session), "C_CloseSession");
    hsm::ModuleSession reader(module);
    std::vector<hsm::KeyRow> keys;
    bool more = false;
    if (reader.Open(FindSlot(module, token_label), false) ||
        reader.ListKeys(CKO_PUBLIC_KEY, 0, keys, more)) {
      Die("C_FindObjects failed");
    }
    for (const hsm::KeyRow& key : keys) {
      if (key.id == Bytes{id}) return hsm::PublicKeyOf(key).spki;
    }
    Die("the new key is not there");
  });
}

void SoftHsmFixture::CopyPublicKey(const std::string& token_label, const std::string& pin,
                                   std::uint8_t id, std::uint8_t copys_id) {
  InChild([&](hsm::Module& module) {
    const auto [session, key] = FindKeyObject(module, token_label, pin, CKO_PUBLIC_KEY, id);
    CK_ATTRIBUTE other_id{CKA_ID, &copys_id, 1};
    CK_OBJECT_HANDLE copy = 0;
    Check(module->C_CopyObject(session, key, &other_id, 1, &copy), "C_CopyObject");
    Check(module->C_Finalize(nullptr), "C_Finalize");
    return Bytes();
  });
}

void SoftHsmFixture::CopyTokens(const std::string& other_folder) {
  fs::copy(other_folder + "/tokens", folder_ + "/tokens", fs::copy_options::recursive);
}

hsm::TokenWorkerOptions SoftHsmFixture::WorkerOptions() {
  hsm::TokenWorkerOptions options;
  options.executable = KEYESCROW_TOKEN_WORKER;
  return options;
}

std::string SoftHsmFixture::FaultyModulePath() { return KEYESCROW_FAULTY_PKCS11; }

Result<SecretBytes> FixedPin::AskPin(const envelope::PinRequest& request) {
  ++num_asked;
  last = request;
  return SecretBytes::CopyOf(AsBytes(pin_));
}

void FixedPin::OnReader(const envelope::PinRequest& request) {
  ++num_on_reader;
  last = request;
}

}  // namespace keyescrow::simulators
