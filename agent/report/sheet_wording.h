// What a recovery sheet says, the same on HTML pages and in text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/report/recovery_sheet.h"

namespace keyescrow::agent::report {

struct SheetStep {
  std::string text;
  std::string command;  // to type, or ""
};

struct SheetFact {
  std::string name;
  std::string value;
  bool is_code = false;  // to be compared character by character
};

// What carries the envelope: codes to scan, or lines to type or to take from the file itself.
enum class SheetForm : std::uint8_t { kCodes, kLines };

std::string WhatItIs(const RecoverySheet& sheet, SheetForm form);

// StepsOf returns the five steps of a restore from this very sheet.
std::vector<SheetStep> StepsOf(const RecoverySheet& sheet, SheetForm form, std::size_t num_lines);
SheetStep WithoutKeyescrow();
std::vector<SheetFact> FactsOf(const RecoverySheet& sheet);
std::string NeedsOf(const SheetPath& path);

}  // namespace keyescrow::agent::report
