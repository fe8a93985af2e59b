#include "envelope/password.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "envelope/blocklist.h"

namespace keyescrow::envelope {
namespace {

using testing::HasSubstr;
using testing::Not;

SecretBytes Secret(std::string_view text) { return *SecretBytes::CopyOf(AsBytes(text)); }

std::string Normalized(std::string_view typed) {
  auto result = NormalizePassword(Secret(typed));
  return result ? std::string(AsText(result->Expose())) : "error: " + result.error().message();
}

void ExpectInvalid(std::string_view typed) {
  auto result = NormalizePassword(Secret(typed));
  ASSERT_FALSE(result) << typed;
  EXPECT_EQ(result.error().code(), ErrorCode::kPasswordInvalid);
  EXPECT_EQ(result.error().failure(), Failure::kFactor);
}

// Weakness returns the error's message, or "" for a password that meets the rules.
std::string Weakness(std::string_view password, const PasswordRules& rules) {
  auto status = CheckPassword(Secret(password), rules);
  if (status) return "";
  EXPECT_EQ(status.error().code(), ErrorCode::kPasswordWeak);
  EXPECT_EQ(status.error().action(), Action::kFixInput);
  return status.error().message();
}

const PasswordRules kNistBesideHardware{.hardware_beside = true};
const PasswordRules kNistAlone{};
const PasswordRules kSsrsBesideHardware{.profile = PasswordProfile::kSsrs, .hardware_beside = true};

TEST(NormalizePassword, ComposesToNfc) {
  EXPECT_EQ(Normalized("plain ascii"), "plain ascii");
  EXPECT_EQ(Normalized("e\xcc\x81"), "\xc3\xa9");         // e + U+0301 gives U+00E9
  EXPECT_EQ(Normalized("\xc3\xa9"), "\xc3\xa9");          // already composed
  EXPECT_EQ(Normalized("\xe2\x84\xab"), "\xc3\x85");      // Angstrom sign gives U+00C5
  EXPECT_EQ(Normalized("\xef\xac\x81"), "\xef\xac\x81");  // NFC, not NFKC: the fi ligature
  EXPECT_EQ(Normalized("\xe0\xa5\x98"), "\xe0\xa4\x95\xe0\xa4\xbc");  // U+0958: NFC grows
  EXPECT_EQ(Normalized("q\xcc\x87\xcc\xa3"), "q\xcc\xa3\xcc\x87");    // marks are put in order
}

TEST(NormalizePassword, CountsBytesAfterNormalising) {
  EXPECT_EQ(Normalized(std::string(127, 'a')), std::string(127, 'a'));
  ExpectInvalid(std::string(128, 'a'));
  ExpectInvalid("");
  std::string long_typed, short_nfc;  // 3 bytes each typed, 2 normalised
  for (int i = 0; i < 63; ++i) long_typed += "e\xcc\x81", short_nfc += "\xc3\xa9";
  EXPECT_EQ(Normalized(long_typed), short_nfc);
  std::string densest;  // 7 bytes typed, 2 normalised: the most that NFC shortens
  for (int i = 0; i < 63; ++i) densest += "\xe1\xbe\xbe\xcc\x88\xcc\x81";
  EXPECT_EQ(Normalized(densest).size(), 126u);
  std::string growing;  // 22 × 3 bytes typed, 22 × 6 normalised
  for (int i = 0; i < 22; ++i) growing += "\xe0\xa5\x98";
  ExpectInvalid(growing);
  ExpectInvalid(std::string(100000, 'a'));
}

TEST(NormalizePassword, RefusesWhatIsNotUtf8) {
  ExpectInvalid("caf\xe9");           // Latin-1
  ExpectInvalid("\xc0\xaf");          // overlong
  ExpectInvalid("\xed\xa0\x80");      // a surrogate
  ExpectInvalid("\xf4\x90\x80\x80");  // above U+10FFFF
  ExpectInvalid("a\xc3");             // cut short
}

TEST(PasswordProfile, NamesRoundTrip) {
  EXPECT_EQ(ParsePasswordProfile("ssrs"), PasswordProfile::kSsrs);
  EXPECT_EQ(ParsePasswordProfile(PasswordProfileName(PasswordProfile::kNist80063b)),
            PasswordProfile::kNist80063b);
  EXPECT_FALSE(ParsePasswordProfile("NIST"));
}

TEST(CheckPassword, SsrsAsksForFourClassesAndHardware) {
  EXPECT_EQ(Weakness("kQ7#vexil", kSsrsBesideHardware), "");
  EXPECT_THAT(Weakness("kq7#vexil", kSsrsBesideHardware), HasSubstr("an upper-case letter"));
  EXPECT_THAT(Weakness("KQ7#VEXIL", kSsrsBesideHardware), HasSubstr("a lower-case letter"));
  EXPECT_THAT(Weakness("kQx#vexil", kSsrsBesideHardware), HasSubstr("a digit"));
  EXPECT_THAT(Weakness("kQ7xvexil", kSsrsBesideHardware), HasSubstr("a symbol"));
  EXPECT_THAT(Weakness("kQ7#vex", kSsrsBesideHardware),
              HasSubstr("at least 8 characters (it has 7)"));
  EXPECT_EQ(Weakness("k\xc3\x89"
                     "7#vexil",
                     kSsrsBesideHardware),
            "");  // É is upper case
  EXPECT_THAT(Weakness("kQ7#vexil-8!wOtpqz", {.profile = PasswordProfile::kSsrs}),
              HasSubstr("a token or a TPM beside it"));
}

TEST(CheckPassword, ListsAllThatIsMissing) {
  const std::string message = Weakness("zqv", kSsrsBesideHardware);
  for (const char* part : {"at least 8", "upper-case", "a digit", "a symbol"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
}

TEST(CheckPassword, ShowsNoPasswordInItsMessage) {
  EXPECT_THAT(Weakness("qwerty123", kSsrsBesideHardware), Not(HasSubstr("qwerty")));
}

TEST(CheckPassword, NistCountsCodePoints) {
  EXPECT_EQ(Weakness("tqvzkwmx", kNistBesideHardware), "");
  EXPECT_THAT(Weakness("tqvzkwm", kNistBesideHardware), HasSubstr("at least 8"));
  // 7 characters of 2 bytes
  EXPECT_THAT(
      Weakness("\xc3\xa9\xc3\xb1\xc3\xa5\xc3\xb8\xc3\xbc\xc3\xa7\xc3\xb6", kNistBesideHardware),
      HasSubstr("at least 8 characters (it has 7)"));
  EXPECT_THAT(Weakness("tqvzkwmxjplrfd", kNistAlone),
              HasSubstr("at least 15 characters (it has 14)"));
  PasswordRules longer = kNistBesideHardware;
  longer.min_length = 16;
  EXPECT_THAT(Weakness("tqvzkwmxjplrfdg", longer), HasSubstr("at least 16"));
  longer.min_length = 4;
  EXPECT_THAT(Weakness("tqvzkwm", longer), HasSubstr("at least 8"));
}

TEST(CheckPassword, CatchesWellKnownPasswordsInDisguise) {
  for (const char* text :
       {"password", "Passw0rd!", "P@ssw0rd123", "PASSWORD!!", "123password", "Pa$$w0rd",
        "Tru5tno1!", "$unshine1", "w3lc0me!!", "W31come!", "12345678", "!password!",
        "passwordpassword", "aaaaaaaaaaaa", "abcabcabcabc", "qwertyqwerty!", "Adm1n1strator",
        "iloveyou99", "Letmein!1"}) {
    EXPECT_THAT(Weakness(text, kNistBesideHardware), HasSubstr("well-known password")) << text;
  }
  EXPECT_THAT(Weakness("Passw0rd!", kSsrsBesideHardware), HasSubstr("well-known password"));
}

TEST(CheckPassword, LeavesUnrelatedPasswordsAlone) {
  for (const char* text :
       {"monkey-wrench-lathe", "81462957x3", "dragonfly-tea", "kaPnB!29vq", "love4817263940"}) {
    EXPECT_EQ(Weakness(text, kNistBesideHardware), "") << text;
  }
}

TEST(CheckPassword, RefusesTheNamesAround) {
  PasswordRules rules = kNistBesideHardware;
  rules.context_names = {"prod/db/mainframe", "vienna-7", "corp", "jsmithson"};
  for (const char* text : {"Mainframe1!", "M@1nfr4me2026", "jsmithson", "JSMITHSON99", "vienna-7!",
                           "prod/db/mainframe", "corpcorp1!"}) {
    EXPECT_THAT(Weakness(text, rules), HasSubstr("name")) << text;
  }
  EXPECT_EQ(Weakness("mainframe under the old oak", rules), "");
}

TEST(CheckPassword, HonoursThePolicysOwnBlocklist) {
  PasswordRules rules = kNistBesideHardware;
  EXPECT_EQ(Weakness("Quokkaland7", rules), "");
  rules.extra_blocklist = {"QuokkaLand"};
  EXPECT_THAT(Weakness("Quokkaland7", rules), HasSubstr("well-known"));
}

TEST(CheckPassword, AloneItMustWithstandGuessing) {
  EXPECT_THAT(Weakness("tomorrow1tomorrow", kNistAlone), HasSubstr("2^50 guesses"));
  EXPECT_EQ(Weakness("vXq8-Lr2w-Zp6t-Kd9m", kNistAlone), "");
  PasswordRules generated = kNistAlone;
  generated.generated = true;
  EXPECT_EQ(Weakness("tomorrow1tomorrow", generated), "");  // the caller vouches for its origin
  EXPECT_THAT(Weakness(std::string("abc\0defghijklmnopq", 18), kNistAlone), HasSubstr("NUL"));
}

TEST(EstimateGuesses, CountsNamesAsKnownWords) {
  const double unknown = *EstimateGuessesLog2(Secret("zanzibarquux"), {});
  const double known = *EstimateGuessesLog2(Secret("zanzibarquux"), {"zanzibarquux"});
  EXPECT_LT(known, unknown / 2);
  EXPECT_EQ(*EstimateGuessesLog2(SecretBytes(), {}), 0);
  EXPECT_GT(*EstimateGuessesLog2(Secret(std::string(127, '\xff')), {}), 0);
}

TEST(Blocklist, HoldsEveryLineOfItself) {
  EXPECT_GE(BlocklistSize(), 3000u);
  for (const char* word :
       {"!@#$%", "password", "zxcvbnm", "123456", "p@ssw0rd", "qwerty", "0000"}) {
    EXPECT_TRUE(IsBlockedPassword(AsBytes(word))) << word;
  }
  for (const char* word : {"", "passwor", "passwordd", "\xff", "\n", "password\n123456"}) {
    EXPECT_FALSE(IsBlockedPassword(AsBytes(word))) << word;
  }
}

class CountingRandom final : public RandomSource {
 public:
  Status Fill(std::span<std::uint8_t> bytes) override {
    for (std::uint8_t& byte : bytes) byte = next_++;
    return Ok();
  }

 private:
  std::uint8_t next_ = 0;
};

TEST(Passphrase, DrawsElevenBitsAWord) {
  CountingRandom random;  // draws 0x0001, 0x0203, 0x0405, 0x0607, 0x0809 (of which 0x009 counts)
  auto phrase = GeneratePassphrase(random, 5);
  ASSERT_TRUE(phrase);
  EXPECT_EQ(AsText(phrase->Expose()),
            std::string(PassphraseWord(1)) + "-" + std::string(PassphraseWord(0x203)) + "-" +
                std::string(PassphraseWord(0x405)) + "-" + std::string(PassphraseWord(0x607)) +
                "-" + std::string(PassphraseWord(9)));
  EXPECT_EQ(PassphraseWord(0), "abandon");
  EXPECT_EQ(PassphraseWord(2047), "zoo");
  EXPECT_FALSE(GeneratePassphrase(random, 4));
  EXPECT_FALSE(GeneratePassphrase(random, 13));
}

TEST(Passphrase, HasDistinctWordsAndMeetsTheRules) {
  std::set<std::string_view> words;
  for (std::size_t i = 0; i < 2048; ++i) {
    words.insert(PassphraseWord(i));
    EXPECT_GE(PassphraseWord(i).size(), 3u);
    EXPECT_LE(PassphraseWord(i).size(), 8u);
  }
  EXPECT_EQ(words.size(), 2048u);
  PasswordRules rules = kNistAlone;
  rules.generated = true;
  for (int i = 0; i < 50; ++i) {
    auto phrase = GeneratePassphrase(SystemRandom(), 5);
    ASSERT_TRUE(phrase);
    EXPECT_TRUE(CheckPassword(*phrase, rules));
  }
}

// CopiesInWritableMemory counts where `masked` (each byte xor 0x55, so that the pattern does not
// find itself) stands in this process's writable memory, forwards or reversed.
int CopiesInWritableMemory(std::string_view masked) {
  constexpr char kMask = 0x55;
  const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  int copies = 0;
  char line[512];
  static char chunk[1 << 16];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long start = 0, end = 0;
    char access[5] = {};
    if (std::sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3 || access[1] != 'w') continue;
    if (end - start > 1UL << 34) continue;  // a sanitizer's shadow
    if (std::string_view(line).find("[stack]") != std::string_view::npos) continue;
    for (unsigned long at = start; at < end; at += sizeof chunk - masked.size()) {
      const auto from = reinterpret_cast<unsigned long>(&chunk[0]);
      if (at < from + sizeof chunk && from < at + sizeof chunk) continue;
      const ssize_t size = pread(memory, chunk, std::min<unsigned long>(sizeof chunk, end - at),
                                 static_cast<off_t>(at));
      for (ssize_t i = 0; i + static_cast<ssize_t>(masked.size()) <= size; ++i) {
        const auto matches = [&](auto first, auto last) {
          return std::equal(first, last, chunk + i, [](char left, char right) {
            return static_cast<char>(left ^ kMask) == right;
          });
        };
        if (matches(masked.begin(), masked.end()) || matches(masked.rbegin(), masked.rend()))
          ++copies;
      }
    }
  }
  std::fclose(maps);
  close(memory);
  return copies;
}

TEST(Password, LeavesNoCopyInMemory) {
  constexpr std::size_t kSize = 40;
  std::string masked(kSize, 0);
  ASSERT_TRUE(SystemRandom().Fill({reinterpret_cast<std::uint8_t*>(masked.data()), kSize}));
  for (char& c : masked) c = static_cast<char>(('a' + (static_cast<unsigned char>(c) % 26)) ^ 0x55);
  {
    auto typed = SecretBytes::Allocate(kSize + 3);
    ASSERT_TRUE(typed);
    const auto bytes = typed->ExposeMutable();
    std::transform(masked.begin(), masked.end(), bytes.begin(),
                   [](char c) { return static_cast<std::uint8_t>(c ^ 0x55); });
    bytes[kSize] = 'e', bytes[kSize + 1] = 0xcc, bytes[kSize + 2] = 0x81;  // not plain ASCII
    EXPECT_GT(CopiesInWritableMemory(masked), 0);                          // the search works
    auto normalized = NormalizePassword(*typed);
    ASSERT_TRUE(normalized);
    (void)CheckPassword(*normalized, {.context_names = {"host", "key/name"}});
  }
  EXPECT_EQ(CopiesInWritableMemory(masked), 0);
}

}  // namespace
}  // namespace keyescrow::envelope
