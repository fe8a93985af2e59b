// A program that is a token worker and nothing else, for tests whose main() is GoogleTest's.
#include <cstring>

#include "hsm/token_worker.h"
#include "hsm/worker_options.h"

int main(int argc, char** argv) {
  if (argc != 2 || std::strcmp(argv[1], keyescrow::hsm::kTokenWorkerFlag) != 0) return 2;
  return keyescrow::hsm::RunTokenWorker(keyescrow::hsm::kTokenWorkerSocket);
}
