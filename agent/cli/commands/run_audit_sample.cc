// audit sample: the draw, and the two files that it makes.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/commands/specs.h"
#include "agent/cli/session.h"
#include "agent/cli/terminal_text.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/usecases/audit_sample.h"
#include "agent/usecases/verify.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

Result<int> DoSample(const AuditSampleOptions& options, Session& session) {
  SampleRequest request;
  request.num_keys = static_cast<std::size_t>(options.number.value_or(0));
  request.with_nonces = !options.expected.empty();
  request.pack = options.pack;
  request.trusted_agent = options.agent;
  if (!options.trust.empty()) {
    ASSIGN_OR_RETURN(request.trust, ReadTrustDocument(options.trust));
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(!options.pack.empty()));
  ASSIGN_OR_RETURN(const Sample sample, DrawSample(session.environment(), agent, request));
  ASSIGN_OR_RETURN(const std::string challenge, audit::FormatChallenge(sample.challenge));
  // The answers first: a challenge without them is of no use, and goes away with its auditor.
  if (request.with_nonces) {
    RETURN_IF_ERROR(WriteFileDurably(options.expected,
                                     AsBytes(audit::FormatTokenAnswers(sample.expected)),
                                     {.mode = 0600, .exclusive = true}));
  }
  RETURN_IF_ERROR(
      WriteFileDurably(options.output, AsBytes(challenge), {.mode = 0644, .exclusive = true}));
  Json document = NewDocument("audit sample");
  document["output"] = options.output;
  document["challenge"] = EncodeBase64Url(sample.challenge.nonce);
  document["origin"] = sample.challenge.origin;
  document["population"] = sample.num_population;
  document["drawn"] = Json::array();
  for (const auto& [name, version] : sample.drawn) {
    document["drawn"].push_back(KeyJson(name, version));
  }
  document["paths"] = sample.challenge.drawn.size();
  document["tokens"] = sample.challenge.tokens.size();
  document["tokens_without_nonce"] = sample.no_nonces;
  std::string text =
      fmt::format("drew {} of {} into {}\n", sample.drawn.size(),
                  Count(sample.num_population, "key"), EscapeForTerminal(options.output));
  for (const auto& [name, version] : sample.drawn) {
    text += fmt::format("  {} version {}\n", EscapeForTerminal(name), version);
  }
  if (request.with_nonces) {
    text += fmt::format("  a nonce for {}\n", Count(sample.challenge.tokens.size(), "token"));
  }
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text, kExitDone));
  if (!sample.no_nonces.empty()) {
    session.terminal().Warn(fmt::format("no nonce for {}: the host has not registered {}",
                                        Count(sample.no_nonces.size(), "token"),
                                        sample.no_nonces.size() == 1 ? "it" : "them"));
  }
  session.terminal().Note("next: on the host, keyescrow drill --challenge " + options.output);
  return status;
}

}  // namespace

int RunAuditSample(const GlobalOptions& /*global*/, const AuditSampleOptions& options,
                   Session& session) {
  return session.Exit(DoSample(options, session));
}

}  // namespace keyescrow::agent
