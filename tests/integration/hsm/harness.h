// What the tests of hsm/ share: wrapping a secret as the envelope does, and counting what is left.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/factor.h"
#include "hsm/token_factor.h"
#include "simulators/softhsm_fixture.h"

namespace keyescrow::hsm {

inline constexpr char kPin[] = "123456";

inline SecretBytes FreshSecret(std::size_t size_bytes = 32) {
  return *RandomSecret(SystemRandom(), size_bytes);
}

inline envelope::Pkcs11RsaRecord WrapRsa(const Bytes& spki, const SecretBytes& secret,
                                         OaepHash hash = OaepHash::kSha256) {
  envelope::Pkcs11RsaRecord record;
  record.hash = hash;
  record.spki = spki;
  record.wrapped = *RsaPublicKey::FromSpki(spki)->EncryptOaep(hash, secret);
  return record;
}

// WrapEcdh returns the record and, in `secret`, the S that a token must derive.
inline envelope::Pkcs11EcdhRecord WrapEcdh(const Bytes& spki, SecretBytes& secret) {
  const auto ephemeral = P256KeyPair::Generate();
  envelope::Pkcs11EcdhRecord record;
  record.spki = spki;
  const auto point = ephemeral->Public().Uncompressed();
  record.epk = Bytes(point.begin(), point.end());
  secret = *envelope::EcdhSecret(*ephemeral->SharedX(*P256Point::FromSpki(spki)), record);
  return record;
}

inline TokenSpec SpecFor(const Bytes& spki, const std::string& uri = "") {
  TokenSpec spec;
  spec.name = "ops";
  spec.module_path = simulators::SoftHsmFixture::ModulePath();
  spec.uri = uri;
  spec.spki = spki;
  return spec;
}

inline std::size_t NumOpenDescriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// ExpectNothingLeft: no child, alive or dead, and no descriptor more than `descriptors`.
inline void ExpectNothingLeft(std::size_t descriptors) {
  errno = 0;
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(NumOpenDescriptors(), descriptors);
}

// Faults puts faulty_pkcs11.so between the worker and SoftHSM while it lives.
class Faults {
 public:
  Faults(const simulators::SoftHsmFixture& fixture, const std::string& rules)
      : trace_(fixture.folder() + "/trace") {
    setenv("ASAN_OPTIONS", "handle_segv=0", 0);  // a crash is the kernel's to report
    setenv("FAULTY_PKCS11_MODULE", simulators::SoftHsmFixture::ModulePath().c_str(), 1);
    setenv("FAULTY_PKCS11_RULES", rules.c_str(), 1);
    setenv("FAULTY_PKCS11_TRACE", trace_.c_str(), 1);
  }
  ~Faults() {
    unsetenv("FAULTY_PKCS11_MODULE");
    unsetenv("FAULTY_PKCS11_RULES");
    unsetenv("FAULTY_PKCS11_TRACE");
  }
  int NumCalls(const std::string& function) const {
    std::ifstream trace(trace_);
    int count = 0;
    for (std::string line; std::getline(trace, line);) count += line == function ? 1 : 0;
    return count;
  }
  static TokenSpec Through(TokenSpec spec) {
    spec.module_path = simulators::SoftHsmFixture::FaultyModulePath();
    return spec;
  }

 private:
  std::string trace_;
};

}  // namespace keyescrow::hsm
