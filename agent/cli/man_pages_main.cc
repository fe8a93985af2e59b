// Writes the manual page of every command into a folder: man_pages DATE FOLDER. Run by the build.
#include <cstdio>
#include <string>

#include "agent/cli/man_page.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: man_pages DATE FOLDER\n", stderr);
    return 2;
  }
  for (const keyescrow::agent::CommandSpec* command : keyescrow::agent::AllCommands()) {
    const std::string path =
        std::string(argv[2]) + "/" + keyescrow::agent::ManPageName(*command) + ".1";
    const std::string page = keyescrow::agent::ManPage(*command, argv[1]);
    std::FILE* const file = std::fopen(path.c_str(), "w");
    const bool written =
        file != nullptr && std::fwrite(page.data(), 1, page.size(), file) == page.size();
    if (file == nullptr || std::fclose(file) != 0 || !written) {
      std::perror(path.c_str());
      return 1;
    }
  }
  return 0;
}
