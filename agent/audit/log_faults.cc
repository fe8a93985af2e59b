#include "agent/audit/log_faults.h"

#include <utility>

namespace keyescrow::agent::audit {
namespace {

struct FaultRow {
  std::string_view name;
  bool damage;
  std::string_view remedy;
};

constexpr FaultRow kRows[] = {
#define KEYESCROW_LOG_FAULT(enumerator, name, damage, remedy) {name, damage, remedy},
#include "agent/audit/log_faults.def"
#undef KEYESCROW_LOG_FAULT
};

const FaultRow& RowOf(LogFault fault) { return kRows[static_cast<std::size_t>(fault)]; }

}  // namespace

std::string_view LogFaultName(LogFault fault) { return RowOf(fault).name; }
std::string_view LogFaultRemedy(LogFault fault) { return RowOf(fault).remedy; }
bool IsDamage(LogFault fault) { return RowOf(fault).damage; }

void LogFindings::Add(LogFault fault, std::uint64_t position, std::string text) {
  ++num_all;
  if (IsDamage(fault)) ++num_damages;
  if (list.size() < kMaxFindings) list.push_back({fault, position, std::move(text)});
}

void LogFindings::Append(LogFindings&& more) {
  num_all += more.num_all;
  num_damages += more.num_damages;
  for (LogFinding& finding : more.list) {
    if (list.size() == kMaxFindings) break;
    list.push_back(std::move(finding));
  }
}

}  // namespace keyescrow::agent::audit
