#include "agent/report/qr_code.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <qrencode.h>

#include "agent/report/text.h"

namespace keyescrow::agent::report {
namespace {

constexpr char kLibrary[] = "libqrencode.so.4";

template <typename Function>
Function* Find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

Result<QrEncoder> QrEncoder::Load() {
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr ||
      Find<decltype(QRcode_encodeString)>(library, "QRcode_encodeString") == nullptr ||
      Find<decltype(QRcode_free)>(library, "QRcode_free") == nullptr) {
    return Error(ErrorCode::kUsage, Action::kCheckSystemState,
                 std::string(kLibrary) + ", which draws QR codes, cannot be loaded",
                 "install it (Debian: libqrencode4), or make the sheet as text with --text");
  }
  return QrEncoder(std::shared_ptr<void>(library, [](void* handle) { dlclose(handle); }));
}

Result<QrCode> QrEncoder::Encode(const std::string& text, int least_version) const {
  const auto encode = Find<decltype(QRcode_encodeString)>(library_.get(), "QRcode_encodeString");
  const auto release = Find<decltype(QRcode_free)>(library_.get(), "QRcode_free");
  // Upper-case text without a character outside of ISO/IEC 18004's 45 is stored in 5.5 bits a
  // character: the library chooses the modes.
  const std::unique_ptr<QRcode, decltype(release)> made(
      encode(text.c_str(), least_version, QR_ECLEVEL_Q, QR_MODE_8, 1), release);
  if (!made) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 fmt::format("{} characters do not fit into a QR code", text.size()),
                 "report this with the size of the envelope");
  }
  QrCode code;
  code.size = static_cast<std::size_t>(made->width);
  code.dark.reserve(code.size * code.size);
  for (std::size_t index = 0; index < code.size * code.size; ++index) {
    code.dark.push_back((made->data[index] & 1) != 0);  // bit 0 is the colour
  }
  return code;
}

std::string QrSvg(const QrCode& code, std::string_view title) {
  const std::size_t side = code.size + 2 * kQuietZoneModules;
  std::string path;
  for (std::size_t row = 0; row < code.size; ++row) {
    std::size_t column = 0;
    std::size_t after_last = 0;  // where the pen stands, from the row's beginning
    while (column < code.size) {
      if (!code.At(row, column)) {
        ++column;
        continue;
      }
      std::size_t end = column;
      while (end < code.size && code.At(row, end)) ++end;
      if (after_last == 0) {
        path += fmt::format("M{} {}.5", column + kQuietZoneModules, row + kQuietZoneModules);
      } else {
        path += fmt::format("m{} 0", column - after_last);
      }
      path += fmt::format("h{}", end - column);
      after_last = column = end;
    }
  }
  return fmt::format(
      "<svg viewBox=\"0 0 {0} {0}\" role=\"img\" aria-label=\"{1}\" shape-rendering=\"crispEdges\">"
      "<path d=\"M0 0h{0}v{0}h-{0}z\" fill=\"#fff\"/>"
      "<path d=\"{2}\" fill=\"none\" stroke=\"#000\"/></svg>",
      side, HtmlText(title), path);
}

}  // namespace keyescrow::agent::report
