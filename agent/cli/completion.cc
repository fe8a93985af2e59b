#include "agent/cli/completion.h"

#include "agent/cli/completion_words.h"

namespace keyescrow::agent {

std::string CompletionScript(Shell shell) {
  switch (shell) {
    case Shell::kBash: return completion::BashScript();
    case Shell::kZsh: return completion::ZshScript();
    case Shell::kFish: return completion::FishScript();
  }
  return "";
}

}  // namespace keyescrow::agent
