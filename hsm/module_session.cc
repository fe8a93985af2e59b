#include "hsm/module_session.h"

#include <algorithm>
#include <array>

namespace keyescrow::hsm {
namespace {

ModuleFailure Failed(TokenCall call, CK_RV rv) { return {call, rv, {}}; }

// RefusesOaep: answers of C_DecryptInit that mean "not this mechanism", so that another is tried.
bool RefusesMechanism(CK_RV rv) {
  return rv == CKR_MECHANISM_INVALID || rv == CKR_MECHANISM_PARAM_INVALID ||
         rv == CKR_ARGUMENTS_BAD || rv == CKR_FUNCTION_NOT_SUPPORTED;
}

// RefusesDerivation: answers of C_DeriveKey after which another form of the same request may work.
bool RefusesDerivation(CK_RV rv) {
  return RefusesMechanism(rv) || rv == CKR_DATA_INVALID || rv == CKR_DATA_LEN_RANGE ||
         rv == CKR_PUBLIC_KEY_INVALID || rv == CKR_DOMAIN_PARAMS_INVALID ||
         rv == CKR_TEMPLATE_INCONSISTENT || rv == CKR_ATTRIBUTE_VALUE_INVALID ||
         rv == CKR_FUNCTION_FAILED || rv == CKR_GENERAL_ERROR;
}

constexpr CK_ULONG kSecretSize = 32;

}  // namespace

ModuleStatus ModuleSession::Open(CK_SLOT_ID slot, bool read_write) {
  Close();
  const CK_FLAGS flags = CKF_SERIAL_SESSION | (read_write ? CKF_RW_SESSION : 0);
  const CK_RV rv = module_->C_OpenSession(slot, flags, nullptr, nullptr, &session_);
  if (rv != CKR_OK) return Failed(TokenCall::kOpenSession, rv);
  slot_ = slot;
  open_ = true;
  return {};
}

void ModuleSession::Close() {
  if (!open_) return;
  if (logged_in_) module_->C_Logout(session_);
  module_->C_CloseSession(session_);
  open_ = logged_in_ = false;
}

// ReadAttribute asks for one attribute; false where the module does not show it or it is too long.
bool ModuleSession::ReadAttribute(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                                  std::size_t max_size_bytes, Bytes& value) {
  value.assign(max_size_bytes, 0);
  CK_ATTRIBUTE attribute{type, value.data(), static_cast<CK_ULONG>(value.size())};
  const CK_RV rv = module_->C_GetAttributeValue(session_, object, &attribute, 1);
  const bool ok = rv == CKR_OK && attribute.ulValueLen <= max_size_bytes;
  value.resize(ok ? attribute.ulValueLen : 0);
  return ok;
}

// ReadAttributes asks for all at once, which costs SoftHSM a lock and a look at the file a call; a
// module that answers anything but CKR_OK, as it must where one attribute is missing, is asked
// again for each.
void ModuleSession::ReadAttributes(CK_OBJECT_HANDLE object, std::span<const Wanted> wanted) {
  std::array<CK_ATTRIBUTE, kMaxWanted> attributes{};
  for (std::size_t index = 0; index < wanted.size(); ++index) {
    wanted[index].value->assign(wanted[index].max_size_bytes, 0);
    attributes.at(index) = {wanted[index].type, wanted[index].value->data(),
                            static_cast<CK_ULONG>(wanted[index].max_size_bytes)};
  }
  bool ok =
      module_->C_GetAttributeValue(session_, object, attributes.data(), wanted.size()) == CKR_OK;
  for (std::size_t index = 0; index < wanted.size(); ++index) {
    ok = ok && attributes.at(index).ulValueLen <= wanted[index].max_size_bytes;
  }
  for (std::size_t index = 0; index < wanted.size(); ++index) {
    const Wanted& one = wanted[index];
    if (ok) {
      one.value->resize(attributes.at(index).ulValueLen);
    } else {
      ReadAttribute(object, one.type, one.max_size_bytes, *one.value);
    }
  }
}

KeyRow ModuleSession::ReadKey(CK_OBJECT_HANDLE object, bool is_private) {
  KeyRow row;
  row.handle = object;
  Bytes number;
  Bytes always_authenticate;
  const std::array<Wanted, 4> common = {{{CKA_KEY_TYPE, sizeof(CK_ULONG), &number},
                                         {CKA_ID, kMaxIdBytes, &row.id},
                                         {CKA_LABEL, kMaxIdBytes, &row.label},
                                         {CKA_ALWAYS_AUTHENTICATE, 1, &always_authenticate}}};
  ReadAttributes(object, std::span(common).first(is_private ? 4 : 3));
  if (number.size() == sizeof(CK_ULONG)) {
    CK_ULONG key_type = 0;
    std::copy(number.begin(), number.end(), reinterpret_cast<std::uint8_t*>(&key_type));
    row.key_type = key_type;
  }
  row.always_authenticate = always_authenticate.size() == 1 && always_authenticate[0] != 0;
  if (row.key_type == CKK_RSA) {
    const std::array<Wanted, 2> rsa = {{{CKA_MODULUS, kMaxNumberBytes, &row.modulus},
                                        {CKA_PUBLIC_EXPONENT, kMaxIdBytes, &row.exponent}}};
    ReadAttributes(object, rsa);
  } else if (row.key_type == CKK_EC) {
    const std::array<Wanted, 2> ec = {
        {{CKA_EC_PARAMS, kMaxIdBytes, &row.ec_params}, {CKA_EC_POINT, kMaxIdBytes, &row.ec_point}}};
    ReadAttributes(object, ec);
  }
  return row;
}

ModuleStatus ModuleSession::ListKeys(CK_OBJECT_CLASS object_class, std::size_t first,
                                     std::vector<KeyRow>& keys, bool& more) {
  CK_ATTRIBUTE wanted{CKA_CLASS, &object_class, sizeof object_class};
  if (const CK_RV rv = module_->C_FindObjectsInit(session_, &wanted, 1); rv != CKR_OK) {
    return Failed(TokenCall::kFindObjects, rv);
  }
  std::vector<CK_OBJECT_HANDLE> handles;
  CK_RV rv = CKR_OK;
  while (handles.size() < kMaxKeys) {
    std::array<CK_OBJECT_HANDLE, 32> found{};
    CK_ULONG count = 0;
    rv = module_->C_FindObjects(session_, found.data(), found.size(), &count);
    if (rv != CKR_OK || count == 0 || count > found.size()) break;
    handles.insert(handles.end(), found.begin(), found.begin() + count);
  }
  const CK_RV final_rv = module_->C_FindObjectsFinal(session_);
  if (rv != CKR_OK) return Failed(TokenCall::kFindObjects, rv);
  if (final_rv != CKR_OK) return Failed(TokenCall::kFindObjects, final_rv);
  const std::size_t end = std::min(handles.size(), first + kMaxKeysInReply);
  for (std::size_t index = std::min(first, end); index < end; ++index) {
    keys.push_back(ReadKey(handles[index], object_class == CKO_PRIVATE_KEY));
  }
  more = end < handles.size();
  return {};
}

ModuleStatus ModuleSession::Login(const SecretBytes* pin) {
  const CK_RV rv = pin == nullptr ? module_->C_Login(session_, CKU_USER, nullptr, 0)
                                  : module_->C_Login(session_, CKU_USER,
                                                     const_cast<CK_BYTE*>(pin->Expose().data()),
                                                     static_cast<CK_ULONG>(pin->size()));
  if (rv != CKR_OK) return Failed(TokenCall::kLogin, rv);
  logged_in_ = true;
  return {};
}

// Source: PKCS#11 3.0, 5.6, C_Login with CKU_CONTEXT_SPECIFIC: between Init and the operation.
ModuleStatus ModuleSession::ContextLogin(const KeyOperation& operation) {
  if (operation.pin == nullptr && !operation.on_reader) return {};
  const CK_RV rv = operation.on_reader
                       ? module_->C_Login(session_, CKU_CONTEXT_SPECIFIC, nullptr, 0)
                       : module_->C_Login(session_, CKU_CONTEXT_SPECIFIC,
                                          const_cast<CK_BYTE*>(operation.pin->Expose().data()),
                                          static_cast<CK_ULONG>(operation.pin->size()));
  if (rv != CKR_OK) return Failed(TokenCall::kContextLogin, rv);
  return {};
}

ModuleStatus ModuleSession::DecryptRsa(const KeyOperation& operation, OaepHash hash,
                                       ByteView ciphertext, bool& raw, SecretBytes& output) {
  CK_RSA_PKCS_OAEP_PARAMS oaep{};
  oaep.hashAlg = hash == OaepHash::kSha1 ? CKM_SHA_1 : CKM_SHA256;
  oaep.mgf = hash == OaepHash::kSha1 ? CKG_MGF1_SHA1 : CKG_MGF1_SHA256;
  oaep.source = CKZ_DATA_SPECIFIED;
  CK_MECHANISM mechanism{CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
  raw = false;
  CK_RV rv = module_->C_DecryptInit(session_, &mechanism, operation.key);
  if (RefusesMechanism(rv)) {
    mechanism = {CKM_RSA_X_509, nullptr, 0};
    raw = true;
    rv = module_->C_DecryptInit(session_, &mechanism, operation.key);
  }
  if (rv != CKR_OK) {
    return ModuleFailure{TokenCall::kDecryptInit, rv,
                         RefusesMechanism(rv) ? OfferedMechanisms() : std::string()};
  }
  if (auto failure = ContextLogin(operation)) return failure;
  CK_ULONG size = static_cast<CK_ULONG>(output.size());
  rv = module_->C_Decrypt(session_, const_cast<CK_BYTE*>(ciphertext.data()),
                          static_cast<CK_ULONG>(ciphertext.size()), output.ExposeMutable().data(),
                          &size);
  if (rv == CKR_OK && size > output.size()) rv = CKR_BUFFER_TOO_SMALL;
  if (rv != CKR_OK) return Failed(TokenCall::kDecrypt, rv);
  output.Truncate(size);
  return {};
}

ModuleStatus ModuleSession::DeriveEcdh(const KeyOperation& operation, ByteView point,
                                       ByteView shared_info, bool& is_s, SecretBytes& output) {
  Bytes der = {0x04, static_cast<std::uint8_t>(point.size())};  // OCTET STRING of 65 bytes
  der.insert(der.end(), point.begin(), point.end());
  is_s = false;
  ModuleStatus first = DeriveOnce(operation, CKD_NULL, point, {}, output);
  if (!first || first->call != TokenCall::kDeriveKey || !RefusesDerivation(first->rv)) return first;
  // Some modules want the point as DER, as 2.20 worded it; Luna in FIPS mode refuses CKD_NULL.
  ModuleStatus next = DeriveOnce(operation, CKD_NULL, der, {}, output);
  if (!next || next->call != TokenCall::kDeriveKey || !RefusesDerivation(next->rv)) return next;
  next = DeriveOnce(operation, CKD_SHA256_KDF, point, shared_info, output);
  if (!next) {
    is_s = true;
    return {};
  }
  if (RefusesMechanism(first->rv)) first->text = OfferedMechanisms();
  return first;
}

ModuleStatus ModuleSession::DeriveOnce(const KeyOperation& operation, CK_ULONG kdf, ByteView point,
                                       ByteView shared_info, SecretBytes& output) {
  CK_ECDH1_DERIVE_PARAMS parameters{};
  parameters.kdf = kdf;
  parameters.pPublicData = const_cast<CK_BYTE*>(point.data());
  parameters.ulPublicDataLen = static_cast<CK_ULONG>(point.size());
  if (!shared_info.empty()) {
    parameters.pSharedData = const_cast<CK_BYTE*>(shared_info.data());
    parameters.ulSharedDataLen = static_cast<CK_ULONG>(shared_info.size());
  }
  CK_MECHANISM mechanism{CKM_ECDH1_DERIVE, &parameters, sizeof parameters};
  CK_OBJECT_CLASS object_class = CKO_SECRET_KEY;
  CK_KEY_TYPE key_type = CKK_GENERIC_SECRET;
  CK_BBOOL no = CK_FALSE;
  CK_BBOOL yes = CK_TRUE;
  CK_ULONG value_size = kSecretSize;
  // No usage flags: nShield refuses them here (its documentation; not run).
  std::array<CK_ATTRIBUTE, 6> derived_template = {{
      {CKA_CLASS, &object_class, sizeof object_class},
      {CKA_KEY_TYPE, &key_type, sizeof key_type},
      {CKA_TOKEN, &no, sizeof no},
      {CKA_SENSITIVE, &no, sizeof no},
      {CKA_EXTRACTABLE, &yes, sizeof yes},
      {CKA_VALUE_LEN, &value_size, sizeof value_size},
  }};
  CK_OBJECT_HANDLE derived = 0;
  CK_RV rv = module_->C_DeriveKey(session_, &mechanism, operation.key, derived_template.data(),
                                  derived_template.size(), &derived);
  if (rv == CKR_USER_NOT_LOGGED_IN && (operation.pin != nullptr || operation.on_reader)) {
    if (auto failure = ContextLogin(operation)) return failure;
    rv = module_->C_DeriveKey(session_, &mechanism, operation.key, derived_template.data(),
                              derived_template.size(), &derived);
  }
  if (rv != CKR_OK) return Failed(TokenCall::kDeriveKey, rv);
  CK_ATTRIBUTE value{CKA_VALUE, output.ExposeMutable().data(),
                     static_cast<CK_ULONG>(output.size())};
  rv = module_->C_GetAttributeValue(session_, derived, &value, 1);
  if (rv == CKR_OK && value.ulValueLen > output.size()) rv = CKR_ATTRIBUTE_SENSITIVE;
  module_->C_DestroyObject(session_, derived);
  if (rv != CKR_OK) return Failed(TokenCall::kGetAttributeValue, rv);
  output.Truncate(value.ulValueLen);
  return {};
}

ModuleStatus ModuleSession::ReadEvidence(CK_OBJECT_HANDLE key,
                                         std::vector<std::uint8_t>& booleans) {
  constexpr std::array<CK_ATTRIBUTE_TYPE, kNumEvidenceBooleans> kTypes = {CKA_SENSITIVE,
                                                                          CKA_EXTRACTABLE,
                                                                          CKA_ALWAYS_SENSITIVE,
                                                                          CKA_NEVER_EXTRACTABLE,
                                                                          CKA_LOCAL,
                                                                          CKA_WRAP_WITH_TRUSTED,
                                                                          CKA_ALWAYS_AUTHENTICATE,
                                                                          CKA_DECRYPT,
                                                                          CKA_DERIVE,
                                                                          CKA_SIGN,
                                                                          CKA_UNWRAP};
  for (const CK_ATTRIBUTE_TYPE type : kTypes) {
    Bytes value;
    const bool present = ReadAttribute(key, type, 1, value) && value.size() == 1;
    booleans.push_back(!present ? 2 : value[0] != 0 ? 1 : 0);
  }
  return {};
}

std::string ModuleSession::OfferedMechanisms() {
  constexpr std::array<std::pair<CK_MECHANISM_TYPE, std::string_view>, 6> kNames = {{
      {CKM_RSA_PKCS, "RSA-PKCS"},
      {CKM_RSA_PKCS_OAEP, "RSA-PKCS-OAEP"},
      {CKM_RSA_X_509, "RSA-X-509"},
      {CKM_ECDSA, "ECDSA"},
      {CKM_ECDH1_DERIVE, "ECDH1-DERIVE"},
      {CKM_ECDH1_COFACTOR_DERIVE, "ECDH1-COFACTOR-DERIVE"},
  }};
  std::array<CK_MECHANISM_TYPE, 512> offered{};
  CK_ULONG count = offered.size();
  if (module_->C_GetMechanismList(slot_, offered.data(), &count) != CKR_OK ||
      count > offered.size()) {
    return {};
  }
  std::string text;
  for (const auto& [type, name] : kNames) {
    if (std::find(offered.begin(), offered.begin() + count, type) == offered.begin() + count) {
      continue;
    }
    text += text.empty() ? "it offers " : ", ";
    text += name;
  }
  return text.empty() ? "it offers no mechanism for RSA or ECDH" : text;
}

}  // namespace keyescrow::hsm
