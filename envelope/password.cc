#include "envelope/password.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>
#include <zxcvbn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "envelope/blocklist.h"

namespace keyescrow::envelope {
namespace {

// A text of more bytes cannot normalise to 127: composition shortens to a third and a half at most
// (U+1FBE U+0308 U+0301, 7 bytes, becomes U+0390, 2 bytes).
constexpr std::size_t kMaxTypedBytes = 512;
// NFC lengthens UTF-8 to three times at most (UAX #15, 9.1); with room to spare u8_normalize never
// turns to malloc for its result.
constexpr std::size_t kNormalizedRoom = 4096;

Error InvalidPassword(std::string message, std::string hint) {
  return Error(ErrorCode::kPasswordInvalid, Action::kReauthenticate, std::move(message),
               std::move(hint))
      .WithFailure(Failure::kFactor);
}

Error TooLong() {
  return InvalidPassword("the password is longer than 127 bytes of UTF-8", "type a shorter one");
}

bool IsAscii(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte < 0x80; });
}

std::uint8_t LowerCase(std::uint8_t c) {
  return c >= 'A' && c <= 'Z' ? static_cast<std::uint8_t>(c + ('a' - 'A')) : c;
}

// WithoutLeet undoes the usual substitutions; `one` says what a 1 stands for, i or l.
std::uint8_t WithoutLeet(std::uint8_t c, std::uint8_t one) {
  switch (c) {
    case '0': return 'o';
    case '1':
    case '!':
    case '|': return one;
    case '3': return 'e';
    case '4':
    case '@': return 'a';
    case '5':
    case '$': return 's';
    case '7':
    case '+': return 't';
    case '8': return 'b';
    case '9': return 'g';
    default: return c;
  }
}

bool IsAsciiLetter(std::uint8_t c) { return c >= 'a' && c <= 'z'; }
bool IsDigit(std::uint8_t c) { return c >= '0' && c <= '9'; }
bool IsDecoration(std::uint8_t c) { return c < 0x80 && !IsAsciiLetter(c); }

std::string FoldedName(std::string_view name) {
  std::string folded(name);
  for (char& c : folded) c = static_cast<char>(LowerCase(static_cast<std::uint8_t>(c)));
  return folded;
}

// Units: the name itself and the parts between its separators; shorter than 3 say nothing.
std::vector<std::string> ContextWords(const std::vector<std::string>& names) {
  std::vector<std::string> words;
  for (const std::string& name : names) {
    const std::string folded = FoldedName(name);
    words.push_back(folded);
    std::size_t start = 0;
    while (start <= folded.size()) {
      const std::size_t end = std::min(folded.find_first_of("/._-@ ", start), folded.size());
      words.push_back(folded.substr(start, end - start));
      start = end + 1;
    }
  }
  std::erase_if(words, [](const std::string& word) { return word.size() < 3; });
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  return words;
}

// RepeatedUnit returns the shortest prefix whose repetition is all of `text`.
ByteView RepeatedUnit(ByteView text) {
  for (std::size_t period = 1; period * 2 <= text.size(); ++period) {
    if (text.size() % period == 0 &&
        std::equal(text.begin() + static_cast<std::ptrdiff_t>(period), text.end(), text.begin())) {
      return text.first(period);
    }
  }
  return text;
}

// Familiar decides whether a password is a well-known one or one of the names around it, dressed
// up: other case, substitutions, digits and symbols before or behind, repetition.
class Familiar {
 public:
  static Result<Familiar> Of(const SecretBytes& password) {
    Familiar familiar;
    const ByteView text = password.Expose();
    constexpr std::array<std::uint8_t, 3> kOnes = {0, 'i', 'l'};  // 0: substitutions stay
    for (std::size_t i = 0; i < kOnes.size(); ++i) {
      ASSIGN_OR_RETURN(familiar.forms_[i], SecretBytes::Allocate(text.size()));
      const auto form = familiar.forms_[i].ExposeMutable();
      std::transform(text.begin(), text.end(), form.begin(), [&](std::uint8_t c) {
        return kOnes[i] == 0 ? LowerCase(c) : WithoutLeet(LowerCase(c), kOnes[i]);
      });
    }
    // What decorates the plain form is cut from the others too: in "P@ssw0rd123" 123 is a tail,
    // not "l2e".
    const ByteView plain = familiar.forms_[0].Expose();
    while (familiar.head_ < plain.size() && IsDecoration(plain[familiar.head_])) ++familiar.head_;
    while (familiar.tail_ < plain.size() - familiar.head_ &&
           IsDecoration(plain[plain.size() - 1 - familiar.tail_])) {
      ++familiar.tail_;
    }
    while (familiar.symbol_tail_ < familiar.tail_ &&
           !IsDigit(plain[plain.size() - 1 - familiar.symbol_tail_])) {
      ++familiar.symbol_tail_;
    }
    return familiar;
  }

  bool IsBlocked(const std::vector<std::string>& extra_blocklist) const {
    std::vector<std::string> extra;
    extra.reserve(extra_blocklist.size());
    for (const std::string& entry : extra_blocklist) extra.push_back(FoldedName(entry));
    return AnyCore([&](ByteView core) {
      const ByteView unit = RepeatedUnit(core);
      if (unit.size() <= 3 && unit.size() < core.size()) return true;
      return IsBlockedPassword(core) || IsBlockedPassword(unit) ||
             std::find(extra.begin(), extra.end(), AsText(core)) != extra.end();
    });
  }

  bool IsMadeOf(const std::vector<std::string>& words) const {
    for (const SecretBytes& form : forms_) {
      const std::string_view text = AsText(form.Expose());
      for (const std::string& word : words) {
        std::size_t covered = 0;
        for (std::size_t at = text.find(word); at != std::string_view::npos;
             at = text.find(word, at + word.size())) {
          covered += word.size();
        }
        if (covered * 2 >= text.size()) return true;
      }
    }
    return false;
  }

 private:
  // AnyCore asks `predicate` for every form with and without its decoration, as long as what is
  // left is half of the password or more.
  template <typename Predicate>
  bool AnyCore(Predicate predicate) const {
    for (const SecretBytes& form : forms_) {
      const ByteView text = form.Expose();
      for (const std::size_t head : {std::size_t{0}, head_}) {
        for (const std::size_t tail : {std::size_t{0}, symbol_tail_, tail_}) {
          if (head + tail >= text.size()) continue;
          const ByteView core = text.subspan(head, text.size() - head - tail);
          if (core.size() * 2 >= text.size() && predicate(core)) return true;
        }
      }
    }
    return false;
  }

  std::array<SecretBytes, 3> forms_;
  std::size_t head_ = 0;
  std::size_t tail_ = 0;         // digits and symbols at the end
  std::size_t symbol_tail_ = 0;  // symbols at the very end
};

struct Census {
  std::size_t num_characters = 0;  // code points
  bool upper = false, lower = false, digit = false, symbol = false, nul = false;
};

Census Count(const SecretBytes& password) {
  Census census;
  ByteView rest = password.Expose();
  while (!rest.empty()) {
    ucs4_t character = 0;
    const int size = u8_mbtouc(&character, rest.data(), rest.size());
    ++census.num_characters;
    if (character == 0) census.nul = true;
    if (uc_is_upper(character)) {
      census.upper = true;
    } else if (uc_is_lower(character)) {
      census.lower = true;
    } else if (uc_is_digit(character)) {
      census.digit = true;
    } else if (!uc_is_alpha(character)) {
      census.symbol = true;
    }
    rest = rest.subspan(static_cast<std::size_t>(size));
  }
  return census;
}

// LoadZxcvbn loads the library when it is wanted: Debian's static one is not position-independent,
// its dictionary is 1.2 MB, and only a new password that stands alone needs it. It stays loaded.
Result<decltype(&ZxcvbnMatch)> LoadZxcvbn() {
  static void* const symbol = [] {
    void* library = dlopen("libzxcvbn.so.0", RTLD_NOW | RTLD_LOCAL);
    return library == nullptr ? nullptr : dlsym(library, "ZxcvbnMatch");
  }();
  if (symbol == nullptr) {
    return Error(ErrorCode::kUnsupportedHere, Action::kCheckSystemState,
                 "the strength of a password that stands alone cannot be estimated: "
                 "libzxcvbn.so.0 is not installed",
                 "install the package libzxcvbn0, or put a token or a TPM beside the password");
  }
  return reinterpret_cast<decltype(&ZxcvbnMatch)>(symbol);
}

std::size_t MinLength(const PasswordRules& rules) {
  const bool alone = rules.profile == PasswordProfile::kNist80063b && !rules.hardware_beside;
  return std::max<std::size_t>(alone ? 15 : 8, rules.min_length);
}

}  // namespace

Result<SecretBytes> NormalizePassword(const SecretBytes& typed) {
  if (typed.empty()) return InvalidPassword("the password is empty", "type a password");
  if (typed.size() > kMaxTypedBytes) return TooLong();
  const ByteView text = typed.Expose();
  if (IsAscii(text)) {
    if (text.size() > kMaxPasswordBytes) return TooLong();
    return SecretBytes::CopyOf(text);
  }
  if (u8_check(text.data(), text.size()) != nullptr) {
    return InvalidPassword("the password is not UTF-8",
                           "set a UTF-8 locale, or convert the password's file to UTF-8");
  }
  ASSIGN_OR_RETURN(SecretBytes normalized, SecretBytes::Allocate(kNormalizedRoom));
  std::uint8_t* room = normalized.ExposeMutable().data();
  std::size_t size = normalized.size();
  // libunistring 1.0 sorts up to 64 characters in a row of one base on the stack, more on the heap,
  // which it does not wipe: nobody types 63 accents on one letter.
  std::uint8_t* result = u8_normalize(UNINORM_NFC, text.data(), text.size(), room, &size);
  if (result != room) {
    if (result != nullptr) {
      Cleanse(result, size);
      std::free(result);
    }
    return Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState,
                 "the password could not be normalised", "free some memory and try again");
  }
  if (size > kMaxPasswordBytes) return TooLong();
  // A copy of its own size: the room would stay locked for the password's whole life.
  return SecretBytes::CopyOf(normalized.Expose().first(size));
}

std::optional<PasswordProfile> ParsePasswordProfile(std::string_view name) {
  if (name == "nist-800-63b") return PasswordProfile::kNist80063b;
  if (name == "ssrs") return PasswordProfile::kSsrs;
  return std::nullopt;
}

std::string_view PasswordProfileName(PasswordProfile profile) {
  return profile == PasswordProfile::kSsrs ? "ssrs" : "nist-800-63b";
}

Status CheckPassword(const SecretBytes& nfc_password, const PasswordRules& rules) {
  std::vector<std::string> missing;
  const Census census = Count(nfc_password);
  if (census.num_characters < MinLength(rules)) {
    missing.push_back(
        fmt::format("at least {} characters (it has {})", MinLength(rules), census.num_characters));
  }
  if (census.nul) missing.push_back("no NUL characters");
  if (rules.profile == PasswordProfile::kSsrs) {
    if (!census.upper) missing.push_back("an upper-case letter");
    if (!census.lower) missing.push_back("a lower-case letter");
    if (!census.digit) missing.push_back("a digit");
    if (!census.symbol) missing.push_back("a symbol");
    if (!rules.hardware_beside) missing.push_back("a token or a TPM beside it (profile ssrs)");
  }
  const std::vector<std::string> words = ContextWords(rules.context_names);
  if (!nfc_password.empty()) {
    ASSIGN_OR_RETURN(const Familiar familiar, Familiar::Of(nfc_password));
    if (familiar.IsBlocked(rules.extra_blocklist)) {
      missing.push_back("not to be a well-known password");
    }
    if (familiar.IsMadeOf(words)) {
      missing.push_back("not to be made of the key's, host's, policy's or user's name");
    }
  }
  if (!rules.hardware_beside && !rules.generated && !census.nul) {
    ASSIGN_OR_RETURN(const double bits, EstimateGuessesLog2(nfc_password, rules.context_names));
    if (bits < kMinGuessesLog2) {
      missing.push_back(fmt::format(
          "2^{:.0f} guesses, as nothing stands beside it (about 2^{:.0f})", kMinGuessesLog2, bits));
    }
  }
  if (missing.empty()) return Ok();
  return Error(ErrorCode::kPasswordWeak, Action::kFixInput,
               fmt::format("the password is too weak for the profile {}: it needs {}",
                           PasswordProfileName(rules.profile), fmt::join(missing, "; ")),
               "choose another; five words drawn at random are strong and can be remembered");
}

Result<double> EstimateGuessesLog2(const SecretBytes& nfc_password,
                                   const std::vector<std::string>& context_names) {
  ASSIGN_OR_RETURN(SecretBytes terminated, SecretBytes::Allocate(nfc_password.size() + 1));
  if (!nfc_password.empty()) {
    std::memcpy(terminated.ExposeMutable().data(), nfc_password.Expose().data(),
                nfc_password.size());
  }
  const std::vector<std::string> words = ContextWords(context_names);
  std::vector<const char*> dictionary;
  dictionary.reserve(words.size() + 1);
  for (const std::string& word : words) dictionary.push_back(word.c_str());
  dictionary.push_back(nullptr);
  ASSIGN_OR_RETURN(const auto match, LoadZxcvbn());
  // zxcvbn-c 2.5 copies the password once, reversed, to the heap, and overwrites that copy before
  // it frees it (a test looks); its result nodes hold positions, no text.
  return match(reinterpret_cast<const char*>(terminated.Expose().data()), dictionary.data(),
               nullptr);
}

bool IsBlankText(std::string_view text) {
  const std::uint8_t* at = AsBytes(text).data();
  std::size_t left = text.size();
  while (left > 0) {
    ucs4_t character = 0;
    const int size = u8_mbtouc(&character, at, left);  // U+FFFD where it is no UTF-8
    const bool unseen =
        uc_is_property(character, UC_PROPERTY_WHITE_SPACE) ||
        uc_is_property(character, UC_PROPERTY_DEFAULT_IGNORABLE_CODE_POINT) ||
        uc_is_general_category_withtable(
            character, UC_CATEGORY_MASK_Z | UC_CATEGORY_MASK_Cc | UC_CATEGORY_MASK_Cf);
    if (!unseen) return false;
    at += size;
    left -= static_cast<std::size_t>(size);
  }
  return true;
}

Result<SecretBytes> GeneratePassphrase(RandomSource& random, unsigned num_words) {
  constexpr std::size_t kLongestWord = 8;
  constexpr unsigned kMaxWords = 12;  // 12 × 8 + 11 = 107 bytes
  if (num_words < kMinGeneratedWords || num_words > kMaxWords) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 fmt::format("a passphrase of {} words is not offered", num_words),
                 fmt::format("ask for {} to {} words", kMinGeneratedWords, kMaxWords));
  }
  ASSIGN_OR_RETURN(SecretBytes draws, RandomSecret(random, num_words * 2));
  ASSIGN_OR_RETURN(SecretBytes phrase, SecretBytes::Allocate(num_words * (kLongestWord + 1)));
  const ByteView drawn = draws.Expose();
  const auto out = phrase.ExposeMutable();
  std::size_t size = 0;
  for (unsigned i = 0; i < num_words; ++i) {
    // 11 of 16 random bits: 2048 words, no bias.
    const std::size_t index = (drawn[2 * i] << 8 | drawn[2 * i + 1]) & 0x7ff;
    const std::string_view word = PassphraseWord(index);
    if (i > 0) out[size++] = '-';
    std::memcpy(out.data() + size, word.data(), word.size());
    size += word.size();
  }
  phrase.Truncate(size);
  return phrase;
}

}  // namespace keyescrow::envelope
