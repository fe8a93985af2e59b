// One key derivation in a process of its own, as the library gives it: what a restore by password
// would cost if it did nothing else. Usage: kdf_alone argon2id T M_KIB P | kdf_alone pbkdf2 ITER
#include <argon2.h>
#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  constexpr std::string_view kWord = "correct horse battery staple";
  constexpr std::string_view kSalt = "00112233445566778899aabbccddeeff";
  std::array<std::uint8_t, 32> out{};
  const auto number = [&](int i) {
    return static_cast<std::uint32_t>(i < argc ? std::strtoul(argv[i], nullptr, 10) : 0);
  };
  if (argc == 5 && std::string_view(argv[1]) == "argon2id") {
    return argon2id_hash_raw(number(2), number(3), number(4), kWord.data(), kWord.size(),
                             kSalt.data(), kSalt.size(), out.data(), out.size()) != ARGON2_OK;
  }
  if (argc == 3 && std::string_view(argv[1]) == "pbkdf2") {
    return PKCS5_PBKDF2_HMAC(kWord.data(), static_cast<int>(kWord.size()),
                             reinterpret_cast<const unsigned char*>(kSalt.data()),
                             static_cast<int>(kSalt.size()), static_cast<int>(number(2)),
                             EVP_sha512(), static_cast<int>(out.size()), out.data()) != 1;
  }
  return 2;
}
