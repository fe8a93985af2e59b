// What this process is, for the events it writes: read from /proc, without the name service, which
// a static binary does not have.
#pragma once

#include <string>

#include "agent/audit/event.h"

namespace keyescrow::agent {

// CurrentActor describes this process: uid, login uid, name from /etc/passwd, pid, exe.
audit::Actor CurrentActor();

// BootId returns the kernel's boot_id, or "" where /proc is not there.
std::string BootId();

// MachineId returns what stands for this machine: SHA-256 over a label of ours and /etc/machine-id,
// in base64url, for the id itself is not to be shown (machine-id(5)); "" where there is none.
std::string MachineId();

// ClockSynchronized says whether the kernel believes its clock to be synchronised (adjtimex).
bool ClockSynchronized();

}  // namespace keyescrow::agent
