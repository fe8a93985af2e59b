// ReportHistory: what the log's entries tell a report: releases with their outcomes, verifications,
// drills. Whoever makes a report and whoever verifies one in a pack use the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "agent/audit/event.h"
#include "agent/report/report_model.h"

namespace keyescrow::agent {

class ReportHistory {
 public:
  // Read takes the next entry. Tells: an entry of that type changes something here.
  void Read(std::uint64_t seq, const audit::Event& event);
  static bool Tells(audit::EventType type);

  const std::vector<report::Release>& releases() const { return releases_; }
  const std::vector<report::Verification>& verifications() const { return verifications_; }
  std::uint64_t num_drills_passed() const { return num_drills_passed_; }
  std::uint64_t num_drills_failed() const { return num_drills_failed_; }

 private:
  // One process does one restore at a time, and its intent and outcome name the same key.
  // Imported or not, the boot, the process, the key and its version.
  using Matching = std::tuple<bool, std::string, std::int32_t, std::string, std::uint32_t>;
  static Matching MatchingOf(const audit::Event& event);

  report::Release& Add(std::uint64_t seq, const audit::Event& event);
  void Request(std::uint64_t seq, const audit::Event& event);
  void Interrupt(std::uint64_t seq, const audit::Event& event);
  void Conclude(std::uint64_t seq, const audit::Event& event, std::string_view outcome);

  std::vector<report::Release> releases_;
  std::vector<report::Verification> verifications_;
  std::uint64_t num_drills_passed_ = 0;
  std::uint64_t num_drills_failed_ = 0;
  std::map<Matching, std::size_t> open_;
};

}  // namespace keyescrow::agent
