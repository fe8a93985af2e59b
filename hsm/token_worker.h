// The worker: the process in which a PKCS#11 module, foreign code, is loaded and called.
#pragma once

namespace keyescrow::hsm {

// RunTokenWorker serves requests from `socket_fd` (SOCK_SEQPACKET, from WorkerProcess) until the
// other side leaves; it does not return but by _exit: 0 after an orderly end, 2 where `socket_fd`
// is not such a socket. Call it before anything else in main():
//   if (argc == 2 && std::strcmp(argv[1], hsm::kTokenWorkerFlag) == 0) {
//     return hsm::RunTokenWorker(hsm::kTokenWorkerSocket);
//   }
[[noreturn]] int RunTokenWorker(int socket_fd);

inline constexpr int kTokenWorkerSocket = 3;

}  // namespace keyescrow::hsm
