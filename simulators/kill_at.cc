// kill_at: runs a command and kills one of its processes before its N-th system call.
//
//   kill_at PROCESS N REPORT COMMAND [ARGUMENT]…
//
//   PROCESS  0: the command itself; 1: the first process that it starts; 2: the second …
//   N        from 1; 0: nobody is killed. Threads count with their process. N/CALL/FILE counts the
//            calls of that name alone whose FILE, as the report has it, begins so
//   REPORT   N = 0: a line for each system call, in order: "PROCESS CALL FILE", where FILE is what
//            the first descriptor or path argument names, or "-". Else the one line of the kill
//
// Exits as the command did: with its status, or 128 and the signal that ended it. A process whose
// parent was killed runs on to its own end, which is waited for: nothing outlives kill_at.
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>

namespace {

struct Process {
  int number = 0;
  long num_calls = 0;
};

std::map<pid_t, pid_t> process_of;  // thread → process
std::map<pid_t, Process> processes;
int num_processes = 0;
std::FILE* report = nullptr;
std::string counted_calls;  // "CALL FILE", of those that are counted; "": all

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "kill_at: %s: %s\n", what, std::strerror(errno));
  std::exit(126);
}

enum class Names { kNothing, kDescriptor, kPath, kPathAt };
struct Call {
  std::uint64_t number;
  const char* name;
  Names names;
};
constexpr Call kCalls[] = {
#define FD(call) \
  { SYS_##call, #call, Names::kDescriptor }
#define AT(call) \
  { SYS_##call, #call, Names::kPathAt }
#define PLAIN(call) \
  { SYS_##call, #call, Names::kNothing }
    FD(read),
    FD(write),
    FD(pread64),
    FD(pwrite64),
    FD(readv),
    FD(writev),
    FD(close),
    FD(fstat),
    FD(lseek),
    FD(fcntl),
    FD(fsync),
    FD(fdatasync),
    FD(ftruncate),
    FD(fallocate),
    FD(flock),
    FD(fchmod),
    FD(fchown),
    FD(ioctl),
    FD(getdents64),
    FD(sendmsg),
    FD(recvmsg),
    FD(sendto),
    FD(recvfrom),
    FD(fadvise64),
    AT(openat),
    AT(newfstatat),
    AT(unlinkat),
    AT(mkdirat),
    AT(linkat),
    AT(renameat2),
    AT(readlinkat),
    AT(faccessat),
    AT(faccessat2),
    AT(fchownat),
    AT(fchmodat),
    PLAIN(mmap),
    PLAIN(munmap),
    PLAIN(mprotect),
    PLAIN(brk),
    PLAIN(mlock),
    PLAIN(mlock2),
    PLAIN(munlock),
    PLAIN(madvise),
    PLAIN(execve),
    PLAIN(clone),
    PLAIN(clone3),
    PLAIN(wait4),
    PLAIN(exit_group),
    PLAIN(rt_sigaction),
    PLAIN(rt_sigprocmask),
    PLAIN(prctl),
    PLAIN(prlimit64),
    PLAIN(getrandom),
    PLAIN(futex),
    PLAIN(socketpair),
    PLAIN(socket),
    PLAIN(connect),
    PLAIN(ppoll),
    PLAIN(umask),
    PLAIN(getcwd),
    PLAIN(chdir),
    PLAIN(kill),
    PLAIN(dup3),
    PLAIN(pipe2),
    PLAIN(clock_nanosleep),
    PLAIN(uname),
    PLAIN(sysinfo),
    PLAIN(getpid),
    PLAIN(gettid),
    PLAIN(getuid),
    PLAIN(geteuid),
    PLAIN(getgid),
    PLAIN(getegid),
    PLAIN(set_tid_address),
    PLAIN(set_robust_list),
    PLAIN(rseq),
    PLAIN(sched_getaffinity),
    PLAIN(close_range),
#ifdef SYS_open
#define PATH(call) \
  { SYS_##call, #call, Names::kPath }
    PATH(open),
    PATH(stat),
    PATH(lstat),
    PATH(access),
    PATH(unlink),
    PATH(rmdir),
    PATH(mkdir),
    PATH(rename),
    PATH(link),
    PATH(readlink),
    PATH(chmod),
    PATH(chown),
    PLAIN(poll),
    PLAIN(arch_prctl),
    PLAIN(dup2),
    PLAIN(vfork),
    PLAIN(fork),
#endif
};

// Text reads a path from the tracee: at most PATH_MAX bytes, and what can be read of them.
std::string Text(pid_t thread, std::uint64_t address) {
  char text[PATH_MAX] = {};
  for (std::size_t size = 0; size < sizeof text; size += 256) {
    iovec here{text + size, 256};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address in the other process
    iovec there{reinterpret_cast<void*>(address + size), 256};
    if (process_vm_readv(thread, &here, 1, &there, 1, 0) <= 0) break;
    if (std::memchr(text + size, 0, 256) != nullptr) break;
  }
  text[sizeof text - 1] = 0;
  return text;
}

std::string FileOf(pid_t thread, std::uint64_t descriptor) {
  const std::string link = "/proc/" + std::to_string(thread) + "/fd/" + std::to_string(descriptor);
  char target[PATH_MAX];
  const ssize_t size = readlink(link.c_str(), target, sizeof target);
  return size < 0 ? "-" : std::string(target, static_cast<std::size_t>(size));
}

std::string Describe(pid_t thread, const __ptrace_syscall_info& info) {
  std::string name = std::to_string(info.entry.nr);
  std::string file = "-";
  for (const Call& call : kCalls) {
    if (call.number != info.entry.nr) continue;
    name = call.name;
    if (call.names == Names::kDescriptor) file = FileOf(thread, info.entry.args[0]);
    if (call.names == Names::kPath) file = Text(thread, info.entry.args[0]);
    if (call.names == Names::kPathAt) file = Text(thread, info.entry.args[1]);
  }
  return name + " " + (file.empty() ? "-" : file);
}

// LeaderOf returns the process that a thread belongs to.
pid_t LeaderOf(pid_t thread) {
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Tgid:")) return static_cast<pid_t>(std::atoi(line.c_str() + 5));
  }
  return thread;
}

Process& Of(pid_t thread) {
  const auto known = process_of.find(thread);
  const pid_t leader = known != process_of.end() ? known->second : LeaderOf(thread);
  process_of[thread] = leader;
  const auto [at, is_new] = processes.try_emplace(leader);
  if (is_new) at->second.number = num_processes++;
  return at->second;
}

// Entered counts a system call that `thread` is about to make; true if it is the one.
bool Entered(pid_t thread, int wanted, long n) {
  __ptrace_syscall_info info{};
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) < 0) return false;
  if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return false;
  Process& process = Of(thread);
  std::string what;
  if (n == 0 || !counted_calls.empty()) what = Describe(thread, info);
  const bool counts = process.number == wanted && what.starts_with(counted_calls);
  const bool is_it = n != 0 && counts && ++process.num_calls == n;
  if (is_it && what.empty()) what = Describe(thread, info);
  if (n == 0 || is_it) std::fprintf(report, "%d %s\n", process.number, what.c_str());
  return is_it;
}

void Run(char** command) {
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  execv(command[0], command);
  Die(command[0]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: kill_at PROCESS N REPORT COMMAND [ARGUMENT]…\n");
    return 126;
  }
  const int wanted = std::atoi(argv[1]);
  const long n = std::atol(argv[2]);
  if (const char* call = std::strchr(argv[2], '/'); call != nullptr) {
    counted_calls = call + 1;
    const std::size_t name_end = counted_calls.find('/');
    if (name_end != std::string::npos) counted_calls[name_end] = ' ';
  }
  report = std::fopen(argv[3], "we");
  if (report == nullptr) Die(argv[3]);
  const pid_t command = fork();
  if (command < 0) Die("fork");
  if (command == 0) Run(argv + 4);

  int status = 0;
  if (waitpid(command, &status, 0) != command || !WIFSTOPPED(status)) Die("waitpid");
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK |
                       PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
  if (ptrace(PTRACE_SETOPTIONS, command, nullptr, options) < 0) Die("ptrace");
  Of(command);
  ptrace(PTRACE_SYSCALL, command, nullptr, nullptr);

  int exit_status = 126;
  while (true) {
    const pid_t thread = waitpid(-1, &status, __WALL);
    if (thread < 0) {
      if (errno == EINTR) continue;
      break;  // all are gone
    }
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (thread == command) {
        exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      process_of.erase(thread);
      continue;
    }
    long signal_number = WSTOPSIG(status);
    const bool is_event = status >> 16 != 0;
    if (signal_number == (SIGTRAP | 0x80)) {
      if (Entered(thread, wanted, n)) kill(process_of[thread], SIGKILL);
      signal_number = 0;
    } else if (is_event || signal_number == SIGSTOP) {
      signal_number = 0;  // a new process or thread, or an exec
    }
    ptrace(PTRACE_SYSCALL, thread, nullptr, signal_number);
  }
  std::fclose(report);
  return exit_status;
}
