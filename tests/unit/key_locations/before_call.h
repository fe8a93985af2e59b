// What another program does at one moment of ours: between two of our system calls.
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

namespace keyescrow::agent {

// BeforeCall runs `body` in a child and `meanwhile`, here, before the child's n-th system call
// (from 1). Returns what `body` returned, -1 if it did not end so; nothing if it made fewer calls.
template <typename Body, typename Meanwhile>
std::optional<int> BeforeCall(int n, Body body, Meanwhile meanwhile) {
  const pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, options);
  int num_calls = 0;
  long signal_number = 0;
  while (WIFSTOPPED(status)) {
    const __ptrace_request how = num_calls < n ? PTRACE_SYSCALL : PTRACE_CONT;
    if (ptrace(how, child, nullptr, signal_number) < 0 || waitpid(child, &status, 0) < 0) return -1;
    signal_number = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
    if (signal_number != (SIGTRAP | 0x80)) continue;
    signal_number = 0;
    __ptrace_syscall_info info{};
    ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && ++num_calls == n) meanwhile();
  }
  if (num_calls < n) return std::nullopt;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace keyescrow::agent
