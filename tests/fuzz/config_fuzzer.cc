// agent.toml: any text is a configuration or an error with a line. A key that is added to a valid
// file and removed again leaves the file as it was, byte for byte.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "agent/config/config.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 4096, .memory_mib = 64, .cpu_s = 4};

namespace {

// Folder is one in memory where there is one: the edits sync what they write.
class Folder {
 public:
  Folder() {
    path_ = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/kf-XXXXXX" : "/tmp/kf-XXXXXX";
    FUZZ_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string file() const { return path_ + "/agent.toml"; }

 private:
  std::string path_;
};

const std::string& File() {
  static const Folder kFolder;
  static const std::string kFile = kFolder.file();
  return kFile;
}

std::string ReadBack() {
  std::ifstream file(File(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

void Prepare() { File(); }

void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = 256 << 10;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes("\n" + text)); };
  std::string keys;
  for (int number = 0; keys.size() < kSize; ++number) keys += "a" + std::to_string(number) + "=1\n";
  feed_text(keys);
  std::string blocks;
  for (int number = 0; blocks.size() < kSize; ++number) {
    blocks += "[[key]]\nname='" + std::to_string(number) + "'\nsource='file:/a'\n";
  }
  feed_text(blocks);
  feed_text("a=" + std::string(kSize, '['));
  std::string tables;
  while (tables.size() < kSize) tables += "a.";
  feed_text("[" + tables + "a]");
  feed_text(tables + "a=1");
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  using namespace keyescrow::agent;
  fuzz::Input input(data, size);
  const std::string name(input.Line());  // of the key that is added
  const std::string_view text = AsText(input.rest());
  const auto config = ParseConfig(text, "agent.toml");
  if (!config) {
    fuzz::CheckError(config.error());
    FUZZ_CHECK(config.error().code() == ErrorCode::kConfiguration);
    return 0;
  }
  for (const DeclaredKey& key : config->keys) {
    FUZZ_CHECK(!key.name.empty() && !key.source.empty() && key.line > 0);
    FUZZ_CHECK(config->FindKey(key.name) == &key);
  }
  if (name.empty()) return 0;
  std::ofstream(fuzz::File(), std::ios::binary) << text;
  DeclaredKey key{.name = name, .source = "file:/k", .paths = {"password"}, .kdf = "argon2id"};
  if (const auto added = AddDeclaredKey(fuzz::File(), key); !added) {
    fuzz::CheckError(added.error());
    FUZZ_CHECK(fuzz::ReadBack() == text);
    return 0;
  }
  const auto with = LoadConfig(fuzz::File());
  FUZZ_CHECK(with && with->keys.size() == config->keys.size() + 1);
  const DeclaredKey* found = with->FindKey(name);
  FUZZ_CHECK(found != nullptr && found->source == key.source && found->paths == key.paths);
  FUZZ_CHECK(fuzz::ReadBack().starts_with(text));
  FUZZ_CHECK(RemoveDeclaredKey(fuzz::File(), name).has_value());
  const auto without = LoadConfig(fuzz::File());
  FUZZ_CHECK(without && without->keys.size() == config->keys.size());
  return 0;
}
