// RunCli: the whole command line, from argv to the exit status. main.cc gives it the devices.
#pragma once

#include "agent/usecases/devices.h"

namespace keyescrow::agent {

// RunCli runs one command and returns its exit status (exit_code.h). It hardens the process first;
// OpenSSL must have been initialised before. Nothing that it calls throws across it.
int RunCli(int argc, char** argv, Devices& devices);

}  // namespace keyescrow::agent
