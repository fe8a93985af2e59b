// WithNumThreads: what a limit on processes and threads (RLIMIT_NPROC) does.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace keyescrow {

// WithNumThreads runs `body` in a child that can have `count` threads in all, and returns what it
// returned; 99 where it was killed. Started by root the child is a user that has no other process;
// started by anybody else it may well get no further thread at all.
template <typename Body>
int WithNumThreads(rlim_t count, Body body) {
  const pid_t pid = fork();
  if (pid == 0) {
    const rlimit limit{count, count};
    const uid_t user = 60000 + static_cast<uid_t>(getpid()) % 4000;
    if (setrlimit(RLIMIT_NPROC, &limit) != 0) _exit(98);
    if (geteuid() == 0 && setresuid(user, user, user) != 0) _exit(98);
    _exit(body());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

}  // namespace keyescrow
