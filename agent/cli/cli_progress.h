// CliProgress: the use cases' progress, as a spinner on standard error.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/spinner.h"
#include "agent/cli/terminal.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

// `terminal` outlives it. The spinner is stopped before anything else is written.
class CliProgress final : public Progress {
 public:
  explicit CliProgress(Terminal& terminal) : terminal_(terminal) {}
  void Step(std::string_view what) override;
  void Pause() override { spinner_.reset(); }
  void Note(std::string_view text) override;
  void Warn(std::string_view text) override;

  // warnings: what Warn was told where the result is JSON, of which they become a part.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Terminal& terminal_;
  std::optional<Spinner> spinner_;
  std::vector<std::string> warnings_;
};

}  // namespace keyescrow::agent
