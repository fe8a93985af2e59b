// Registering a token in the middle of a backup, so that nobody has to leave for it.
#include <unistd.h>

#include <algorithm>

#include "agent/usecases/registry.h"
#include "agent/wizard/journeys.h"

namespace keyescrow::agent {
namespace {

// Debian's places. The first that exists is only the answer that Enter takes.
constexpr const char* kUsualModules[] = {
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/libykcs11.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/softhsm/libsofthsm2.so",
};

// PercentEncoded writes a label for a URI: what is not unreserved in RFC 3986 as %XX.
std::string PercentEncoded(const std::string& label) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : label) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return out;
}

// NameFor makes a name of the format from a label: at most 64 of [A-Za-z0-9._-].
std::string NameFor(const std::string& label) {
  std::string out;
  for (const char c : label.substr(0, 64)) {
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    out.push_back(allowed ? c : '-');
  }
  return out.empty() ? "token" : out;
}

}  // namespace

std::string GuessedModule(Agent* agent) {
  if (agent != nullptr) {
    const auto tokens = agent->store().Tokens();
    if (tokens && !tokens->empty()) return tokens->front().module;
  }
  for (const char* module : kUsualModules) {
    if (access(module, R_OK) == 0) return module;
  }
  return "";
}

Result<std::optional<std::string>> AddTokenPages(WizardTools& tools, Questions& questions,
                                                 Agent& agent) {
  TokenAddRequest request;
  ModuleFacts facts;
  std::size_t chosen = 0;
  const std::vector<Step> steps = {
      [&]() -> Result<Move> {
        Page page;
        page.title = "A new token: its module";
        page.paragraphs = {
            "A token is spoken to through a PKCS#11 module: a shared library of its maker, or "
            "OpenSC's. Plug the token in, then name the module."};
        page.help =
            "OpenSC's module speaks to most smart cards. A YubiKey works with OpenSC's or with "
            "libykcs11.so, a network HSM with the library that came with it.";
        const std::string guess = request.module.empty() ? GuessedModule(&agent) : request.module;
        const auto check = [&](const std::string& answer) -> std::string {
          tools.progress->Step("asking the module for its tokens");
          auto found = agent.environment().devices->InspectModule(answer);
          tools.progress->Pause();
          if (!found) return "error: " + found.error().message();
          if (found->tokens.empty())
            return "this module sees no token: plug one in, or name another";
          facts = std::move(*found);
          return "";
        };
        ASSIGN_OR_RETURN(const auto module, questions.AskText(page, "module", guess, check));
        if (!module) return Move::kBack;
        request.module = *module;
        return Move::kNext;
      },
      [&]() -> Result<Move> {
        Page page;
        page.title = "A new token: which one";
        page.paragraphs = {"The module sees these tokens."};
        for (const TokenFacts& token : facts.tokens) {
          page.choices.push_back(
              {token.label, token.manufacturer + " " + token.model + ", serial " + token.serial +
                                (token.software ? "; in software: it protects little" : "")});
        }
        page.help =
            "The label was given when the token was set up. Its key must be there already: "
            "'keyescrow token keygen' makes one.";
        ASSIGN_OR_RETURN(const auto token,
                         questions.Choose(page, std::min(chosen, facts.tokens.size() - 1)));
        if (!token) return Move::kBack;
        chosen = *token;
        const TokenFacts& facts_of = facts.tokens[chosen];
        request.uri = "pkcs11:token=" + PercentEncoded(facts_of.label);
        // Two tokens may have one label.
        if (!facts_of.serial.empty()) request.uri += ";serial=" + PercentEncoded(facts_of.serial);
        return Move::kNext;
      },
      [&]() -> Result<Move> {
        Page page;
        page.title = "A new token: its name here";
        page.paragraphs = {
            "Recovery paths name the token by this. Only its public key is registered: no PIN is "
            "kept."};
        page.help = "Letters, digits, '.', '_' and '-'; at most 64.";
        const std::string guess = NameFor(facts.tokens[chosen].label);
        const auto check = [&](const std::string& answer) -> std::string {
          request.name = answer;
          auto secrets = tools.new_secrets();
          if (!secrets) return "error: " + secrets.error().message();
          tools.progress->Step("looking for the token's key");
          auto added = AddToken(agent, request, **secrets);
          tools.progress->Pause();
          if (!added) return "error: " + added.error().message() + "; " + added.error().hint();
          for (const std::string& finding : added->findings) tools.progress->Warn(finding);
          return "";
        };
        ASSIGN_OR_RETURN(const auto name, questions.AskText(page, "name", guess, check));
        return name ? Move::kNext : Move::kBack;
      },
  };
  ASSIGN_OR_RETURN(const bool added, WalkSteps(steps));
  if (!added) return std::nullopt;
  return std::make_optional(request.name);
}

}  // namespace keyescrow::agent
