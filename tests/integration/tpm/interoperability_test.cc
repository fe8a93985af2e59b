// Records open with tpm2-tools, as recovery without this program would do it; and what other tools
// make opens here.
#include <fstream>
#include <iterator>

#include "envelope/base/hash.h"
#include "envelope/base/p256.h"
#include "tests/integration/tpm/tpm_test_base.h"

namespace keyescrow::tpm {
namespace {

class TpmInteroperability : public TpmTest {
 protected:
  void Write(const std::string& name, ByteView bytes) {
    std::ofstream file(swtpm_.folder() + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  Bytes Read(const std::string& name) {
    std::ifstream file(swtpm_.folder() + "/" + name, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
};

constexpr char kFlush[] =
    "{ tpm2_flushcontext -t; tpm2_flushcontext -l; tpm2_flushcontext -s; } && ";

TEST_F(TpmInteroperability, Tpm2ToolsOpenASealedRecord) {
  envelope::Tpm2Record record;
  ASSERT_OK_AND_ASSIGN(record, Seal(*Open(), &auth_, {7}));
  Write("s.pub", record.object_public);
  Write("s.priv", record.object_private);
  const std::string auth = ToHex(auth_.Expose());
  ASSERT_EQ(swtpm_.Tool("tpm2_startauthsession --policy-session -c 0x81000001 -S s.ctx && "
                        "tpm2_sessionconfig --enable-encrypt s.ctx && "
                        "tpm2_policypcr -Q -S s.ctx -l sha256:7 && "
                        "tpm2_policyauthvalue -Q -S s.ctx && "
                        "tpm2_load -Q -C 0x81000001 -u s.pub -r s.priv -c o.ctx && "
                        "tpm2_flushcontext -t && "
                        "tpm2_unseal -c o.ctx -p 'session:s.ctx+hex:" +
                        auth + "' -o out.bin"),
            0);
  EXPECT_EQ(Read("out.bin"), ToBytes(secret_.Expose()));
}

TEST_F(TpmInteroperability, ARecordWrappedOfflineOpensOnItsHostAndWithTpm2Tools) {
  for (const SecretBytes* auth :
       {static_cast<const SecretBytes*>(&auth_), static_cast<const SecretBytes*>(nullptr)}) {
    ASSERT_OK_AND_ASSIGN(
        auto record,
        WrapForParent(srk_, {.secret = &secret_, .auth_value = auth, .host = "db1", .pcrs = {}},
                      SystemRandom()));
    EXPECT_EQ(record.seed.size(), 70U);
    auto tpm = Open();
    log_->Reset();
    ExpectOpens(*tpm, record, auth);
    EXPECT_EQ(log_->entries()[auth != nullptr ? 1U : 0U].command_code, 0x156U);
    ExpectNothingLeft();
  }
  ASSERT_OK_AND_ASSIGN(
      auto record,
      WrapForParent(srk_, {.secret = &secret_, .auth_value = &auth_, .host = "db1", .pcrs = {}},
                    SystemRandom()));
  auto tpm = Open();
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &wrong_auth_}).error().code(),
            ErrorCode::kTpmWrongAuth);
  Write("d.pub", record.object_public);
  Write("d.dup", record.object_private);
  Write("d.seed", record.seed);
  ASSERT_EQ(swtpm_.Tool(
                std::string("tpm2_import -C 0x81000001 -i d.dup -u d.pub -s d.seed -r d.priv && ") +
                kFlush +
                "tpm2_startauthsession --policy-session -c 0x81000001 -S s.ctx && "
                "tpm2_policyauthvalue -Q -S s.ctx && "
                "tpm2_load -Q -C 0x81000001 -u d.pub -r d.priv -c o.ctx && tpm2_flushcontext -t && "
                "tpm2_unseal -c o.ctx -p 'session:s.ctx+hex:" +
                ToHex(auth_.Expose()) + "' -o out.bin"),
            0);
  EXPECT_EQ(Read("out.bin"), ToBytes(secret_.Expose()));
}

TEST_F(TpmInteroperability, ARecordUnderASignedPolicyOpensWithTheSignersSignatureAlone) {
  ASSERT_OK_AND_ASSIGN(auto signer, P256KeyPair::Generate());
  const auto spki = signer.Public().Spki();
  // The record is made by tpm2-tools with the policy that the format prescribes.
  envelope::Tpm2Record record;
  record.host = "web1";
  record.parent_public = srk_;
  record.pcrs = "sha256:7";
  record.signer = Bytes(spki.begin(), spki.end());
  record.auth = true;
  Write("policy", envelope::Tpm2AuthPolicy({7}, {}, record.signer));
  Write("secret", secret_.Expose());
  ASSERT_EQ(swtpm_.Tool(std::string("tpm2_create -C 0x81000001 -i secret -L policy -p hex:") +
                        ToHex(auth_.Expose()) +
                        " -a 'fixedtpm|fixedparent' -u o.pub -r o.priv && "
                        "tpm2_pcrread sha256:7 -o pcr.bin && "
                        "tpm2_startauthsession -S t.ctx && "
                        "tpm2_policypcr -Q -S t.ctx -l sha256:7 -L pcr.pol && " +
                        kFlush + "true"),
            0);
  record.object_public = Read("o.pub");
  record.object_private = Read("o.priv");
  const Bytes approved = Read("pcr.pol");
  ASSERT_EQ(approved.size(), 32U);
  ASSERT_OK_AND_ASSIGN(const Bytes64 signature, signer.SignEs256(Sha256(approved)));

  auto tpm = Open();
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_}).error().code(),
            ErrorCode::kTpmPolicySignature);
  auto opened = tpm->Unseal(record, {.auth_value = &auth_, .pcr_policy_signature = &signature});
  ASSERT_TRUE(opened.has_value()) << opened.error().message();
  EXPECT_TRUE(opened->EqualsConstantTime(secret_));

  Bytes64 other = signature;
  other[5] ^= 1;
  EXPECT_EQ(
      tpm->Unseal(record, {.auth_value = &auth_, .pcr_policy_signature = &other}).error().code(),
      ErrorCode::kTpmPolicySignature);
  swtpm_.ExtendPcr(7, Bytes32{1});
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_, .pcr_policy_signature = &signature})
                .error()
                .code(),
            ErrorCode::kTpmPolicySignature);
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
  ExpectNothingLeft();
}

TEST_F(TpmInteroperability, TheStorageKeyIsTheOneThatTpm2ToolsMakeFromTheTemplate) {
  simulators::SwtpmFixture fresh;
  auto tpm = Open(fresh, {});
  ASSERT_OK_AND_ASSIGN(auto parent, tpm->StorageParent());
  EXPECT_OK(tpm->device()->Close());
  ASSERT_EQ(fresh.Tool("tpm2_createprimary -C o -G ecc256:aes128cfb -c p.ctx -a "
                       "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|"
                       "decrypt' && tpm2_flushcontext -t && tpm2_readpublic -c p.ctx -o p.pub"),
            0);
  std::ifstream file(fresh.folder() + "/p.pub", std::ios::binary);
  const Bytes made((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(made, parent);
}

}  // namespace
}  // namespace keyescrow::tpm
