#include "agent/usecases/journald.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

// Priorities of syslog(3).
constexpr char kWarning = '4';
constexpr char kNotice = '5';
constexpr char kInfo = '6';

void AddField(std::string& datagram, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  datagram += name;
  if (value.find('\n') == std::string_view::npos) {
    datagram += '=';
  } else {
    datagram += '\n';
    std::uint64_t size = value.size();
    for (int byte = 0; byte < 8; ++byte, size >>= 8) datagram += static_cast<char>(size & 0xFF);
  }
  datagram += value;
  datagram += '\n';
}

char Priority(const audit::Event& event) {
  if (event.outcome == audit::Outcome::kFailure ||
      event.type == audit::EventType::kAnchorMismatch ||
      event.type == audit::EventType::kGateOverridden) {
    return kWarning;
  }
  const std::string_view type = audit::EventTypeName(event.type);
  return type.starts_with("restore.") || type.starts_with("key.") ? kNotice : kInfo;
}

std::string PathIds(const audit::Event& event) {
  std::string ids;
  for (const audit::EventPath& path : event.paths) ids += (ids.empty() ? "" : ", ") + path.id;
  return ids;
}

std::string Message(const audit::Event& event) {
  std::string text(audit::EventTypeName(event.type));
  if (event.key) {
    text += " " + event.key->name;
    if (event.key->version != 0) text += fmt::format(" version {}", event.key->version);
  }
  if (const std::string ids = PathIds(event); !ids.empty()) text += " by " + ids;
  if (!event.error.empty()) text += ": " + event.error;
  return text;
}

}  // namespace

std::string JournaldMessageId(audit::EventType type) {
  const Bytes32 digest = Sha256({AsBytes("keyescrow event "), AsBytes(audit::EventTypeName(type))});
  Bytes16 id;
  std::copy_n(digest.begin(), id.size(), id.begin());
  id[6] = static_cast<std::uint8_t>((id[6] & 0x0F) | 0x80);
  id[8] = static_cast<std::uint8_t>((id[8] & 0x3F) | 0x80);
  return ToHex(id);
}

std::string FormatJournaldEntry(const JournaldEntry& entry) {
  std::string datagram;
  const auto event = audit::ParseEvent(entry.line);
  if (event) {
    AddField(datagram, "MESSAGE", Message(*event));
    AddField(datagram, "MESSAGE_ID", JournaldMessageId(event->type));
    AddField(datagram, "PRIORITY", std::string(1, Priority(*event)));
    AddField(datagram, "KEYESCROW_TYPE", audit::EventTypeName(event->type));
    AddField(datagram, "KEYESCROW_OUTCOME", audit::OutcomeName(event->outcome));
    AddField(datagram, "KEYESCROW_ERROR", event->error);
    if (event->key) {
      AddField(datagram, "KEYESCROW_KEY", event->key->name);
      if (event->key->version != 0) {
        AddField(datagram, "KEYESCROW_VERSION", std::to_string(event->key->version));
      }
    }
    AddField(datagram, "KEYESCROW_PATHS", PathIds(*event));
    AddField(datagram, "KEYESCROW_REASON", event->reason);
    AddField(datagram, "KEYESCROW_SOURCE", event->source);
  } else {
    AddField(datagram, "MESSAGE", "an entry that this version does not read");
    AddField(datagram, "PRIORITY", std::string(1, kNotice));
  }
  AddField(datagram, "SYSLOG_IDENTIFIER", "keyescrow");
  AddField(datagram, "KEYESCROW_SEQ", std::to_string(entry.seq));
  AddField(datagram, "KEYESCROW_LEAF_HASH", EncodeBase64Url(entry.leaf_hash));
  AddField(datagram, "KEYESCROW_ENTRY", entry.line);
  return datagram;
}

JournaldSender::~JournaldSender() {
  if (fd_ >= 0) close(fd_);
}

bool JournaldSender::Connect() {
  if (fd_ >= 0) return true;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.empty() || path_.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path_.data(), path_.size());
  fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ >= 0 && connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return true;
  }
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  path_.clear();
  return false;
}

void JournaldSender::Send(const std::vector<JournaldEntry>& entries) {
  for (const JournaldEntry& entry : entries) {
    if (!Connect()) return;
    const std::string datagram = FormatJournaldEntry(entry);
    (void)send(fd_, datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

}  // namespace keyescrow::agent
