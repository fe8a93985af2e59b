#include "agent/usecases/drill_check.h"

#include <fmt/format.h>

#include <utility>

#include "agent/audit/drill_proof.h"
#include "agent/audit/merkle.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxHeaders = 64;

Error NotHeld(std::string what) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator, std::move(what),
               "drill the path again, and compare the log with a copy");
}

}  // namespace

Result<const envelope::Header*> DrillChecker::HeaderOf(const audit::Event& event) {
  const Bytes32& hash = event.envelope->sha256;
  if (const auto known = headers_.find(hash); known != headers_.end()) return known->second.get();
  if (headers_.size() >= kMaxHeaders) headers_.clear();
  std::unique_ptr<envelope::Header> header;
  ASSIGN_OR_RETURN(const auto file, reader_.EnvelopeBytes(event.key->name, event.key->version,
                                                          event.envelope->revision));
  if (file) {
    envelope::ReadOptions any;
    any.accept_unknown_agent = true;
    const auto sealed = envelope::SealedEnvelope::Read(*file, any);
    if (sealed && sealed->hash() == hash) {
      header = std::make_unique<envelope::Header>(sealed->header());
    }
  }
  return headers_.emplace(hash, std::move(header)).first->second.get();
}

std::optional<Bytes32> DrillChecker::RootAt(std::uint64_t size) {
  if (size == 0) return audit::CompactRange().Root();
  if (!last_root_ || last_root_->first != size) {
    const audit::TileReader read = [this](unsigned level, std::uint64_t index) {
      return reader_.Tile(level, index);
    };
    const auto root = audit::TreeRoot(size, read);
    last_root_.emplace(size, root ? std::optional(*root) : std::nullopt);
  }
  return last_root_->second;
}

Status DrillChecker::CheckStatement(std::uint64_t seq, const audit::Event& event,
                                    const envelope::Header& header, bool& has_root) {
  RETURN_IF_ERROR(audit::VerifyDrillProof(event, header, event.envelope->sha256));
  const audit::EventDrill& drill = *event.drill;
  // A clock may have gone back since the envelope was made: that its hash is signed shows the
  // order.
  if (drill.time > event.time) return NotHeld("it is of a later time than its entry");
  const bool stateless = event.source == audit::kStatelessSource;
  if (stateless ? drill.size != 0 : drill.size > seq) {
    return NotHeld("it is of a log that was longer than this one at the time");
  }
  const auto root = RootAt(drill.size);
  has_root = root.has_value();
  if (has_root && drill.root != *root) {
    return NotHeld(fmt::format("it names a checkpoint at {} that this log never had", drill.size));
  }
  return Ok();
}

Status DrillChecker::Check(std::uint64_t seq, const audit::Event& event,
                           audit::LogFindings& findings) {
  if (!event.envelope || !event.key) {
    ++tally_.num_no_envelope;
    return Ok();
  }
  ASSIGN_OR_RETURN(const envelope::Header* const header, HeaderOf(event));
  if (header == nullptr) {
    ++tally_.num_no_envelope;
    return Ok();
  }
  bool has_root = true;
  const Status held = CheckStatement(seq, event, *header, has_root);
  if (held) {
    ++(has_root ? tally_.num_held : tally_.num_no_tile);
    return Ok();
  }
  tally_.not_held.push_back(seq);
  const bool imported = event.source == audit::kStatelessSource;
  findings.Add(imported ? audit::LogFault::kImportedDrill : audit::LogFault::kDrillProof, seq,
               fmt::format("entry {} proves no path: {}", seq, held.error().message()));
  return Ok();
}

}  // namespace keyescrow::agent
