#include "agent/cli/cli_progress.h"

namespace keyescrow::agent {

void CliProgress::Step(std::string_view what) {
  if (terminal_.traces()) return terminal_.Trace(what);
  if (spinner_) {
    spinner_->SetText(what);
  } else {
    spinner_.emplace(terminal_, what);
  }
}

void CliProgress::Note(std::string_view text) {
  Pause();
  terminal_.Note(text);
}

void CliProgress::Warn(std::string_view text) {
  Pause();
  if (terminal_.json()) warnings_.emplace_back(text);
  terminal_.Warn(text);
}

}  // namespace keyescrow::agent
