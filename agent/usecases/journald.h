// Log entries to the systemd journal, by its native protocol: one datagram an entry, with the
// entry's number and leaf hash, so that a loss shows (docs/MONITORING.md). Best effort: nothing
// waits for it and nothing fails by it. Source: systemd, "Native Journal Protocol"
// (docs/JOURNAL_NATIVE_PROTOCOL.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/event.h"
#include "envelope/base/bytes.h"

namespace keyescrow::agent {

inline constexpr std::string_view kJournaldSocket = "/run/systemd/journal/socket";

// JournaldMessageId returns the fixed MESSAGE_ID of a type, 32 hexadecimal digits: the first 16
// bytes of SHA-256("keyescrow event " ‖ type), with the version (8) and variant of RFC 9562.
std::string JournaldMessageId(audit::EventType type);

struct JournaldEntry {
  std::uint64_t seq = 0;
  Bytes32 leaf_hash{};
  std::string line;  // as in the log
};

// FormatJournaldEntry returns the datagram.
std::string FormatJournaldEntry(const JournaldEntry& entry);

class JournaldSender {
 public:
  // An empty path sends nothing.
  explicit JournaldSender(std::string socket_path) : path_(std::move(socket_path)) {}
  JournaldSender(const JournaldSender&) = delete;
  JournaldSender& operator=(const JournaldSender&) = delete;
  ~JournaldSender();

  bool wanted() const { return !path_.empty(); }
  // Send does not block. A journal that is not there is not asked again; what it does not take at
  // once is lost.
  void Send(const std::vector<JournaldEntry>& entries);

 private:
  bool Connect();

  std::string path_;  // "" once the journal turned out not to be there
  int fd_ = -1;
};

}  // namespace keyescrow::agent
