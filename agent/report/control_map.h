// The control map: which requirement of common standards each part of the evidence speaks to. The
// requirements are paraphrased; the standards' own texts count.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace keyescrow::agent::report {

struct Control {
  std::string_view standard;  // "NIST SP 800-53"
  std::string_view id;        // "SC-12(1)"
  std::string_view asks;      // in our words
  std::string_view evidence;  // files of the evidence pack, and what in them
};

std::span<const Control> ControlMap();

// ControlsMarkdown is `controls.md` of a pack.
std::string ControlsMarkdown();

}  // namespace keyescrow::agent::report
