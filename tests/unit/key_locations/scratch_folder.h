// A folder of one test's own, removed with it.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

class ScratchFolder : public testing::Test {
 protected:
  ScratchFolder() {
    std::string name = testing::TempDir() + "keyescrow-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) std::abort();
    folder_ = name;
  }
  ~ScratchFolder() override { std::filesystem::remove_all(folder_); }

  std::string At(const std::string& name) const { return folder_ + "/" + name; }

  std::string Put(const std::string& name, const std::string& text, mode_t mode = 0600) const {
    std::ofstream(At(name), std::ios::binary) << text;
    EXPECT_EQ(chmod(At(name).c_str(), mode), 0);
    return At(name);
  }
  std::string Get(const std::string& name) const {
    std::ifstream file(At(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  mode_t ModeOf(const std::string& name) const {
    struct stat found {};
    EXPECT_EQ(stat(At(name).c_str(), &found), 0);
    return found.st_mode & 07777;
  }
  // Names lists the folder: a test sees that nothing was left behind.
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  std::string folder_;
};

inline SecretBytes Secret(std::string_view text) { return *SecretBytes::CopyOf(AsBytes(text)); }
inline std::string Text(const SecretBytes& secret) { return std::string(AsText(secret.Expose())); }

}  // namespace keyescrow::agent
