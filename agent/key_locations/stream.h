// Secret bytes over descriptors; inside this folder alone.
#pragma once

#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

// ReadKey reads to the end of `fd`: 0 bytes to kMaxKeyBytes. `name` is for messages.
// Errors: kSourceUnreadable with errno, kSourceSize when there is more.
Result<SecretBytes> ReadKey(int fd, const std::string& name);

// WritePipe writes all of `bytes`; a reader that is gone gives EPIPE, not a signal.
// Returns 0 or an errno.
int WritePipe(int fd, ByteView bytes);

// FillPipe puts as much of `bytes` into a pipe as it takes without a reader, and returns what is
// left: nothing of a key of up to 64 KiB. Whoever reads it later gets that much even if this
// process is killed: done before a command begins, no command takes a part of a key for the whole.
ByteView FillPipe(int fd, ByteView bytes);

// KeySizeError: "… is empty" or "… is larger than 1 MiB".
Error KeySizeError(const std::string& name, bool empty);

}  // namespace keyescrow::agent
