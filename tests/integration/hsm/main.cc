// The test program is its own token worker, as the agent's binary is.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "hsm/token_protocol.h"
#include "hsm/token_worker.h"
#include "hsm/worker_options.h"

namespace {

// AnswerAs answers each request with the next line of `script`, written in hex: a worker that its
// module took over. A line that begins with '+' is sent though nothing was asked; '~' is a pause of
// 200 ms before the answer; '!' is a worker that does nothing any more.
int AnswerAs(const char* script) {
  std::ifstream file(script);
  for (std::string hex; std::getline(file, hex);) {
    const char how = hex.empty() ? '\0' : hex.front();
    while (how == '!') pause();
    if (how == '+' || how == '~') hex.erase(0, 1);
    std::string reply;
    for (std::size_t at = 0; at + 1 < hex.size(); at += 2) {
      reply += static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16));
    }
    char request = 0;
    if (how != '+' && recv(keyescrow::hsm::kTokenWorkerSocket, &request, 1, 0) != 1) return 1;
    if (how == '~') std::this_thread::sleep_for(std::chrono::milliseconds(200));
    if (send(keyescrow::hsm::kTokenWorkerSocket, reply.data(), reply.size(), MSG_NOSIGNAL) < 0) {
      return 1;
    }
  }
  // What is asked ahead stays unanswered; it must be taken, or the replies are lost with it.
  const char leave = static_cast<char>(keyescrow::hsm::TokenRequest::kLeave);
  for (char request = 0; request != leave;) {
    if (recv(keyescrow::hsm::kTokenWorkerSocket, &request, 1, 0) != 1) return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], keyescrow::hsm::kTokenWorkerFlag) == 0) {
    if (const char* script = std::getenv("KEYESCROW_TEST_REPLIES")) return AnswerAs(script);
    return keyescrow::hsm::RunTokenWorker(keyescrow::hsm::kTokenWorkerSocket);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
