// The pins of foreign escrows as the store keeps them: JSON of their kinds, names and thresholds.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/usecases/foreign_escrow.h"

namespace keyescrow::agent {

std::string WriteForeignPins(const ForeignPin& pin, const std::vector<unsigned>& slots);
// ReadForeignPins: where the text is not what WriteForeignPins wrote, the pin is an unknown one.
void ReadForeignPins(std::string_view json, ForeignPin& pin, std::vector<unsigned>& slots);

}  // namespace keyescrow::agent
