#include "envelope/base/clock.h"

#include <chrono>
#include <cstdio>
#include <ctime>

#include "envelope/base/forward_clock.h"

namespace keyescrow {
namespace {

class WallClock final : public Clock {
 public:
  std::int64_t NowUnixSeconds() override { return std::time(nullptr); }
};

// FormatFarTime is for times whose year is not of four digits.
std::string FormatFarTime(std::int64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm fields{};
  gmtime_r(&time, &fields);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02dZ", fields.tm_year + 1900,
                fields.tm_mon + 1, fields.tm_mday, fields.tm_hour, fields.tm_min, fields.tm_sec);
  return text;
}

std::optional<int> Digits(std::string_view text, std::size_t offset, std::size_t count) {
  int value = 0;
  for (std::size_t index = offset; index < offset + count; ++index) {
    if (text[index] < '0' || text[index] > '9') return std::nullopt;
    value = value * 10 + (text[index] - '0');
  }
  return value;
}

}  // namespace

Clock& SystemClock() {
  static WallClock wall;
  static ForwardClock clock(wall);
  return clock;
}

std::string FormatUtc(std::int64_t unix_seconds) {
  constexpr std::int64_t kDay = 86400;
  constexpr std::int64_t kFirst = -62167219200;  // 0000-01-01
  constexpr std::int64_t kEnd = 253402300800;    // 10000-01-01
  if (unix_seconds < kFirst || unix_seconds >= kEnd) return FormatFarTime(unix_seconds);
  const auto days = std::chrono::floor<std::chrono::days>(
      std::chrono::sys_seconds(std::chrono::seconds(unix_seconds)));
  const std::chrono::year_month_day date(days);
  const auto second =
      static_cast<unsigned>(unix_seconds - std::int64_t{days.time_since_epoch().count()} * kDay);
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  std::string text = "0000-00-00T00:00:00Z";
  const auto put = [&text](std::size_t offset, unsigned number) {
    text[offset] = static_cast<char>('0' + number / 10);
    text[offset + 1] = static_cast<char>('0' + number % 10);
  };
  put(0, year / 100);
  put(2, year % 100);
  put(5, static_cast<unsigned>(date.month()));
  put(8, static_cast<unsigned>(date.day()));
  put(11, second / 3600);
  put(14, second / 60 % 60);
  put(17, second % 60);
  return text;
}

std::optional<std::int64_t> ParseUtc(std::string_view text) {
  if (text.size() != 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
      text[16] != ':' || text[19] != 'Z') {
    return std::nullopt;
  }
  const auto year = Digits(text, 0, 4), month = Digits(text, 5, 2), day = Digits(text, 8, 2);
  const auto hour = Digits(text, 11, 2), minute = Digits(text, 14, 2), second = Digits(text, 17, 2);
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  if (*hour > 23 || *minute > 59 || *second > 59) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<std::int64_t>(days) * 86400 + *hour * 3600 + *minute * 60 + *second;
}

}  // namespace keyescrow
