#include "agent/key_locations/secret_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/xattr.h>

#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::HasSubstr;

class SecretFile : public ScratchFolder {
 protected:
  void ExpectError(const std::string& path, ErrorCode code) {
    auto secret = ReadSecretFile(path);
    ASSERT_FALSE(secret) << path;
    EXPECT_EQ(secret.error().code(), code) << secret.error().message();
    EXPECT_FALSE(secret.error().hint().empty());
  }
};

TEST_F(SecretFile, YieldsTheFirstLine) {
  EXPECT_EQ(Text(*ReadSecretFile(Put("a", "hunter2\n"))), "hunter2");
  EXPECT_EQ(Text(*ReadSecretFile(Put("b", "hunter2"))), "hunter2");
  EXPECT_EQ(Text(*ReadSecretFile(Put("c", " two words \r\nsecond\n", 0400))), " two words \r");
  EXPECT_EQ(ReadSecretFile(Put("d", std::string(4096, 'x') + "\n"))->size(), 4096u);
  symlink("a", At("link").c_str());
  EXPECT_TRUE(ReadSecretFile(At("link")));
}

TEST_F(SecretFile, RefusesWhatOthersCanRead) {
  for (const mode_t mode : {0640u, 0604u, 0620u, 0602u, 0610u, 0666u}) {
    ExpectError(Put("open", "hunter2", mode), ErrorCode::kSecretFileUnsafe);
  }
  EXPECT_THAT(ReadSecretFile(At("open")).error().hint(), HasSubstr("chmod 600 " + At("open")));
  symlink("open", At("link").c_str());
  ExpectError(At("link"), ErrorCode::kSecretFileUnsafe);
  if (geteuid() == 0) {
    Put("theirs", "hunter2", 0600);
    ASSERT_EQ(chown(At("theirs").c_str(), 1234, 1234), 0);
    ExpectError(At("theirs"), ErrorCode::kSecretFileUnsafe);
  }
}

TEST_F(SecretFile, TakesAnAccessListThatOpensItToThisUserAlone) {
  unsigned char list[] = {2,    0,    0,    0,    1,    0,    4,    0,    0xff, 0xff, 0xff,
                          0xff, 2,    0,    4,    0,    0,    0,    0,    0,    4,    0,
                          0,    0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,    4,    0,    0xff,
                          0xff, 0xff, 0xff, 0x20, 0,    0,    0,    0xff, 0xff, 0xff, 0xff};
  const uid_t user = geteuid();
  for (unsigned i = 0; i < 4; ++i) list[16 + i] = static_cast<unsigned char>(user >> (8 * i));
  const std::string path = Put("credential", "hunter2");
  if (setxattr(path.c_str(), "system.posix_acl_access", list, sizeof list, 0) != 0) {
    GTEST_SKIP() << "this file system has no access lists";
  }
  ASSERT_EQ(ModeOf("credential"), 0440u);
  EXPECT_TRUE(ReadSecretFile(path));
  list[17] = 0x77;  // another user
  ASSERT_EQ(setxattr(path.c_str(), "system.posix_acl_access", list, sizeof list, 0), 0);
  ExpectError(path, ErrorCode::kSecretFileUnsafe);
  list[17] = static_cast<unsigned char>(user >> 8);
  list[22] = 4;  // the file's group
  ASSERT_EQ(setxattr(path.c_str(), "system.posix_acl_access", list, sizeof list, 0), 0);
  ExpectError(path, ErrorCode::kSecretFileUnsafe);
}

TEST_F(SecretFile, RefusesAKeyThatOthersCanReadToo) {
  EXPECT_EQ(ReadWholeSecretFile(Put("key", "a\nb"))->size(), 3U);
  EXPECT_EQ(ReadWholeSecretFile(Put("open", "a\nb", 0640)).error().code(),
            ErrorCode::kSecretFileUnsafe);
}

TEST_F(SecretFile, RefusesWhatIsNoFile) {
  ExpectError(folder_, ErrorCode::kSecretFileUnsafe);
  ExpectError("/dev/zero", ErrorCode::kSecretFileUnsafe);
  ExpectError(At("none"), ErrorCode::kSecretSourceUnreadable);
}

TEST_F(SecretFile, RefusesEmptyAndEndlessLines) {
  ExpectError(Put("a", ""), ErrorCode::kSecretSourceUnreadable);
  ExpectError(Put("b", "\nsecond"), ErrorCode::kSecretSourceUnreadable);
  ExpectError(Put("c", std::string(4097, 'x')), ErrorCode::kSecretSourceUnreadable);
}

TEST_F(SecretFile, ReadsAPipeLineByLine) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  ASSERT_EQ(write(pipe_fds[1], "first\nsecond\n", 13), 13);
  close(pipe_fds[1]);
  EXPECT_EQ(Text(*ReadSecretFd(pipe_fds[0])), "first");
  EXPECT_EQ(Text(*ReadSecretFile("/dev/fd/" + std::to_string(pipe_fds[0]))), "second");
  EXPECT_EQ(ReadSecretFd(pipe_fds[0]).error().code(), ErrorCode::kSecretSourceUnreadable);
  close(pipe_fds[0]);
  EXPECT_EQ(ReadSecretFd(pipe_fds[0]).error().code(), ErrorCode::kSecretSourceUnreadable);
}

}  // namespace
}  // namespace keyescrow::agent
