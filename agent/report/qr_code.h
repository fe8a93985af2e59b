// QR codes by libqrencode, which is loaded when a sheet is made and at no other time: nothing else
// of the program needs it, and a copied binary runs without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent::report {

// QrCode: `size` by `size` modules, row by row; true is dark. Without the quiet zone.
struct QrCode {
  std::size_t size = 0;
  std::vector<bool> dark;

  bool At(std::size_t row, std::size_t column) const { return dark[row * size + column]; }
};

// The quiet zone that a code needs on each side (ISO/IEC 18004, 9.1), in modules.
inline constexpr std::size_t kQuietZoneModules = 4;

class QrEncoder {
 public:
  // Load loads the library. Errors: kUsage where the library is missing.
  static Result<QrEncoder> Load();

  // Encode makes a code of error correction level Q (a quarter of it may be unreadable), not
  // smaller than `least_version` (1 to 40; 17 + 4 × version modules), that holds `text`.
  // Errors: kInternal where the text does not fit.
  Result<QrCode> Encode(const std::string& text, int least_version) const;

 private:
  explicit QrEncoder(std::shared_ptr<void> library) : library_(std::move(library)) {}
  std::shared_ptr<void> library_;
};

// QrSvg draws the code with its quiet zone as an inline SVG picture that `title` names.
std::string QrSvg(const QrCode& code, std::string_view title);

}  // namespace keyescrow::agent::report
