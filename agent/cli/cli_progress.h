// CliProgress: the use cases' progress, as a spinner on standard error.
#pragma once

#include <optional>
#include <string_view>

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

 private:
  Terminal& terminal_;
  std::optional<Spinner> spinner_;
};

}  // namespace keyescrow::agent
