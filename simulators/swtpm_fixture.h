// SwtpmFixture: a fresh software TPM for a test, on unix sockets in a folder of its own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "envelope/base/bytes.h"

namespace keyescrow::simulators {

// SwtpmFixture starts swtpm at construction and kills it at destruction; a failure to start aborts
// the program with a message. Not copyable; several may live at once. Raw commands open a
// connection of their own and must not run while another command is under way.
class SwtpmFixture {
 public:
  SwtpmFixture();
  ~SwtpmFixture();
  SwtpmFixture(const SwtpmFixture&) = delete;
  SwtpmFixture& operator=(const SwtpmFixture&) = delete;

  // tcti returns the loader string, "swtpm:path=…".
  const std::string& tcti() const { return tcti_; }
  pid_t pid() const { return pid_; }
  const std::string& folder() const { return folder_; }

  // ---- the machine
  void Stop();        // TPM2_Shutdown(CLEAR), then end the process
  void Kill();        // SIGKILL: a power cut
  void Start();       // after Stop or Kill; state kept; TPM2_Startup(CLEAR) done
  void PowerCycle();  // Stop and Start
  void SigStop();
  void SigCont();

  // ---- the TPM. Commands that fail abort, except through Command.
  Bytes Command(ByteView command);  // one raw command, the whole response
  void Clear();                     // TPM2_Clear by the platform's lockout hierarchy, empty auth
  void ExtendPcr(std::uint32_t pcr, const Bytes32& digest);
  void SetOwnerAuth(std::string_view auth);    // from an empty auth
  void SetLockoutAuth(std::string_view auth);  // from an empty auth
  void SetDaParameters(std::uint32_t max_tries, std::uint32_t interval_s,
                       std::uint32_t lockout_recovery_s);
  void ResetDa();
  std::uint32_t LockoutCounter();
  std::vector<std::uint32_t> TransientObjects();
  std::vector<std::uint32_t> LoadedSessions();
  std::vector<std::uint32_t> PersistentObjects();

  // Tool runs a shell command with TPM2TOOLS_TCTI set to this TPM, in folder(); its exit status.
  int Tool(const std::string& shell_command);

 private:
  std::vector<std::uint32_t> Handles(std::uint32_t first);
  void RemoveFolder();

  std::string folder_;
  std::string tcti_;
  pid_t pid_ = -1;
};

}  // namespace keyescrow::simulators
