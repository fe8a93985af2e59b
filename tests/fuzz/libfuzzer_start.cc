// libFuzzer's hook before the first input.
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  keyescrow::fuzz::Prepare();
  return 0;
}
