// The test program is its own token worker, as the agent's binary is.
#include <gtest/gtest.h>

#include <cstring>

#include "hsm/token_worker.h"
#include "hsm/worker_options.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], keyescrow::hsm::kTokenWorkerFlag) == 0) {
    return keyescrow::hsm::RunTokenWorker(keyescrow::hsm::kTokenWorkerSocket);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
