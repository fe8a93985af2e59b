#include "agent/policy/signature.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "envelope/base/base64url.h"

namespace keyescrow::agent::policy {
namespace {

constexpr char kSignHint[] =
    "have them run 'keyescrow policy sign FILE --key KEY' on this very file";

std::string Joined(const std::vector<std::string>& names) {
  return names.empty() ? "nobody" : fmt::format("{}", fmt::join(names, ", "));
}

void AddOnce(const std::string& name, std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

std::vector<std::string> NamesOf(const Signers& signers) {
  std::vector<std::string> names;
  for (const envelope::NoteKey& key : signers.keys) names.push_back(key.name);
  return names;
}

}  // namespace

std::string SignedText(const Policy& policy) {
  return fmt::format("keyescrow-policy/1\n{}\n{}\n{}\n", policy.name, policy.serial,
                     EncodeBase64(policy.sha256));
}

std::string AddSignature(const Policy& policy, std::string_view note, const std::string& line) {
  const std::string text = SignedText(policy);
  std::string result = text + "\n";
  const auto old = envelope::ParseNote(note);
  if (old && old->text == text) {
    // The same key's line is told by its name and the base64 of its id, which ends within it.
    const auto added = envelope::ParseNote(text + "\n" + line);
    std::string_view lines = note.substr(text.size() + 1);
    for (const envelope::NoteSignature& kept : old->signatures) {
      const std::size_t end = lines.find('\n') + 1;
      const bool same = added && kept.name == added->signatures.front().name &&
                        kept.id == added->signatures.front().id;
      if (!same) result += lines.substr(0, end);
      lines.remove_prefix(end);
    }
  }
  return result + line;
}

std::vector<std::string> SignerNames(const Policy& policy, std::string_view note) {
  std::vector<std::string> names;
  const auto parsed = envelope::ParseNote(note);
  if (!parsed || parsed->text != SignedText(policy)) return names;
  for (const envelope::NoteSignature& line : parsed->signatures) AddOnce(line.name, names);
  return names;
}

SignerLines ReadSignerLines(const Policy& policy, std::string_view note,
                            const std::vector<envelope::NoteKey>& keys) {
  SignerLines lines;
  const auto parsed = envelope::ParseNote(note);
  if (!parsed || parsed->text != SignedText(policy)) return lines;
  for (const envelope::NoteSignature& line : parsed->signatures) {
    const bool verified = std::any_of(keys.begin(), keys.end(), [&](const envelope::NoteKey& key) {
      return line.name == key.name && line.id == key.id && key.Verify(parsed->text, line.signature);
    });
    AddOnce(line.name, verified ? lines.verified : lines.unverified);
  }
  return lines;
}

Status VerifySignature(const Policy& policy, std::string_view note, const Signers& signers) {
  if (note.empty()) {
    return Error(ErrorCode::kPolicyUnsigned, Action::kFixInput,
                 fmt::format("the policy {} serial {} is not signed", policy.name, policy.serial),
                 kSignHint);
  }
  const auto parsed = envelope::ParseNote(note);
  if (!parsed) {
    return Error(ErrorCode::kPolicySignature, Action::kCallOperator,
                 "the policy's signature file is no signed note: " + parsed.error().message(),
                 kSignHint);
  }
  if (parsed->text != SignedText(policy)) {
    return Error(
        ErrorCode::kPolicySignature, Action::kCallOperator,
        fmt::format("what was signed is not this file: the policy {} serial {} was changed "
                    "after it was signed",
                    policy.name, policy.serial),
        "take the file that was signed, or have the signers sign this one");
  }
  const auto verified = envelope::VerifyNote(*parsed, signers.keys);
  if (!verified) {
    return Error(ErrorCode::kPolicySignature, Action::kCallOperator,
                 "a signature of the policy is forged or damaged: " + verified.error().message(),
                 kSignHint);
  }
  const auto count = static_cast<std::size_t>(std::count(verified->begin(), verified->end(), true));
  if (count >= signers.threshold && count > 0) return Ok();
  return Error(ErrorCode::kPolicySigners, Action::kCallOperator,
               fmt::format("{} of {} signers are needed and {} signed; signed by: {}; those that "
                           "count: {}",
                           signers.threshold, signers.keys.size(), count,
                           Joined(SignerNames(policy, note)), Joined(NamesOf(signers))),
               kSignHint);
}

std::string FormatSigners(const Signers& signers) {
  std::string text = fmt::format("{}\n", signers.threshold);
  for (const envelope::NoteKey& key : signers.keys) text += key.Vkey() + "\n";
  return text;
}

std::optional<Signers> ParseSigners(std::string_view text) {
  Signers signers;
  std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + end, signers.threshold);
  if (error != std::errc() || rest != text.data() + end) return std::nullopt;
  text.remove_prefix(end + 1);
  while ((end = text.find('\n')) != std::string_view::npos) {
    auto key = envelope::NoteKey::FromVkey(text.substr(0, end));
    if (!key) return std::nullopt;
    signers.keys.push_back(std::move(*key));
    text.remove_prefix(end + 1);
  }
  if (!text.empty() || signers.threshold == 0 || signers.threshold > signers.keys.size()) {
    return std::nullopt;
  }
  return signers;
}

}  // namespace keyescrow::agent::policy
