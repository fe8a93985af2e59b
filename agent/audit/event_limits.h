// How much is kept of an event's texts and lists: FORMAT.md, "Entries".
#pragma once

#include <cstddef>

namespace keyescrow::agent::audit {

// Bytes of UTF-8; kMaxEventBytes and kMaxReasonBytes stand in event.h.
inline constexpr std::size_t kMaxTicketBytes = 128;
// Of the reason of an event that is too long with more of it.
inline constexpr std::size_t kMaxShortReasonBytes = 128;
inline constexpr std::size_t kMaxNameBytes = 128;
inline constexpr std::size_t kMaxSourceBytes = 192;
inline constexpr std::size_t kMaxShortBytes = 64;
inline constexpr std::size_t kMaxExeBytes = 256;
inline constexpr std::size_t kMaxApprovers = 8;
inline constexpr std::size_t kMaxPaths = 16;

}  // namespace keyescrow::agent::audit
