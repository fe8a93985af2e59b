// ModuleSession::GenerateKeyPair: the templates of new key pairs, every usage flag explicit, since
// SoftHSM's default is TRUE for all of them.
#include <array>
#include <vector>

#include "hsm/module_session.h"

namespace keyescrow::hsm {
namespace {

struct Template {
  CK_BBOOL yes = CK_TRUE;
  CK_BBOOL no = CK_FALSE;
  std::vector<CK_ATTRIBUTE> attributes;

  void Put(CK_ATTRIBUTE_TYPE type, bool value) {
    attributes.push_back({type, value ? &yes : &no, sizeof(CK_BBOOL)});
  }
  void Put(CK_ATTRIBUTE_TYPE type, ByteView value) {
    attributes.push_back(
        {type, const_cast<std::uint8_t*>(value.data()), static_cast<CK_ULONG>(value.size())});
  }
};

// WantsShorterTemplate: tpm2-pkcs11 1.9 refuses CKA_ENCRYPT and CKA_SIGN in an RSA template.
bool WantsShorterTemplate(CK_RV rv) {
  return rv == CKR_TEMPLATE_INCONSISTENT || rv == CKR_TEMPLATE_INCOMPLETE ||
         rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_VALUE_INVALID ||
         rv == CKR_ATTRIBUTE_READ_ONLY;
}

}  // namespace

// `kind`: 0 RSA-2048, 1 RSA-3072, 2 P-256 (GeneratedKey).
ModuleStatus ModuleSession::GenerateKeyPair(std::uint8_t kind, ByteView id, ByteView label) {
  constexpr std::array<std::uint8_t, 3> kExponent = {0x01, 0x00, 0x01};
  constexpr std::array<std::uint8_t, 10> kP256 = {0x06, 0x08, 0x2a, 0x86, 0x48,
                                                  0xce, 0x3d, 0x03, 0x01, 0x07};
  const bool rsa = kind != 2;
  CK_ULONG bits = kind == 0 ? 2048 : 3072;
  CK_RV rv = CKR_OK;
  for (const bool full : {true, false}) {
    Template public_key;
    Template private_key;
    public_key.Put(CKA_TOKEN, true);
    public_key.Put(CKA_PRIVATE, false);
    public_key.Put(CKA_ID, id);
    public_key.Put(CKA_LABEL, label);
    private_key.Put(CKA_TOKEN, true);
    private_key.Put(CKA_PRIVATE, true);
    private_key.Put(CKA_SENSITIVE, true);
    private_key.Put(CKA_EXTRACTABLE, false);
    private_key.Put(CKA_ID, id);
    private_key.Put(CKA_LABEL, label);
    private_key.Put(CKA_DECRYPT, rsa);
    if (!rsa) private_key.Put(CKA_DERIVE, true);
    if (rsa) {
      public_key.attributes.push_back({CKA_MODULUS_BITS, &bits, sizeof bits});
      public_key.Put(CKA_PUBLIC_EXPONENT, kExponent);
    } else {
      public_key.Put(CKA_EC_PARAMS, kP256);
    }
    if (full) {
      public_key.Put(CKA_ENCRYPT, rsa);
      public_key.Put(CKA_VERIFY, false);
      public_key.Put(CKA_VERIFY_RECOVER, false);
      public_key.Put(CKA_WRAP, false);
      private_key.Put(CKA_SIGN, false);
      private_key.Put(CKA_SIGN_RECOVER, false);
      private_key.Put(CKA_UNWRAP, false);
      if (rsa) private_key.Put(CKA_DERIVE, false);
    }
    CK_MECHANISM mechanism{
        static_cast<CK_MECHANISM_TYPE>(rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN),
        nullptr, 0};
    CK_OBJECT_HANDLE public_handle = 0;
    CK_OBJECT_HANDLE private_handle = 0;
    rv = module_->C_GenerateKeyPair(session_, &mechanism, public_key.attributes.data(),
                                    public_key.attributes.size(), private_key.attributes.data(),
                                    private_key.attributes.size(), &public_handle, &private_handle);
    if (rv == CKR_OK) return {};
    if (!WantsShorterTemplate(rv)) break;
  }
  const bool refused = rv == CKR_MECHANISM_INVALID || rv == CKR_FUNCTION_NOT_SUPPORTED;
  return ModuleFailure{TokenCall::kGenerateKeyPair, rv,
                       refused ? OfferedMechanisms() : std::string()};
}

}  // namespace keyescrow::hsm
