// main: wires the devices to the command line; no logic.
#include <openssl/crypto.h>

#include <cstdlib>
#include <cstring>

#include "agent/cli/run.h"
#include "agent/host_devices.h"
#include "envelope/base/library_memory.h"
#include "envelope/base/pause_point.h"
#include "hsm/token_worker.h"
#include "hsm/worker_options.h"

int main(int argc, char** argv) {
  if (!keyescrow::WipeLibraryMemory()) std::abort();
  if (argc == 2 && std::strcmp(argv[1], keyescrow::hsm::kTokenWorkerFlag) == 0) {
    return keyescrow::hsm::RunTokenWorker(keyescrow::hsm::kTokenWorkerSocket);
  }
  // The machine's openssl.cnf could put other providers under us, and costs 0.3 ms to read
  // (agent/docs/decisions/0001).
  // Its tables need no taking down at exit either.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr);
  int status = 0;
  {
    keyescrow::agent::HostDevices devices;
    status = keyescrow::agent::RunCli(argc, argv, devices);
  }
  keyescrow::PausePoint("agent-end");
  return status;
}
