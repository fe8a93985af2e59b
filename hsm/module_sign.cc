// ModuleSession::SignEcdsa: the signature of a note's hash.
#include "hsm/module_session.h"

namespace keyescrow::hsm {

// Source: PKCS#11 3.0, 5.13, C_SignInit and C_Sign; 6.3.12, CKM_ECDSA: a hash in, R‖S out.
ModuleStatus ModuleSession::SignEcdsa(const KeyOperation& operation, ByteView digest,
                                      Bytes& signature) {
  CK_MECHANISM mechanism{CKM_ECDSA, nullptr, 0};
  CK_RV rv = module_->C_SignInit(session_, &mechanism, operation.key);
  if (rv != CKR_OK) {
    const bool refused = rv == CKR_MECHANISM_INVALID || rv == CKR_FUNCTION_NOT_SUPPORTED;
    return ModuleFailure{TokenCall::kSignInit, rv, refused ? OfferedMechanisms() : std::string()};
  }
  if (auto failure = ContextLogin(operation)) return failure;
  // Room for what a module may write before it says how much that was.
  signature.assign(2 * kSignatureBytes, 0);
  CK_ULONG size = static_cast<CK_ULONG>(signature.size());
  rv = module_->C_Sign(session_, const_cast<CK_BYTE*>(digest.data()),
                       static_cast<CK_ULONG>(digest.size()), signature.data(), &size);
  if (rv == CKR_OK && size != kSignatureBytes) rv = CKR_BUFFER_TOO_SMALL;
  if (rv != CKR_OK) return ModuleFailure{TokenCall::kSign, rv, {}};
  signature.resize(size);
  return {};
}

}  // namespace keyescrow::hsm
