// kSlowness: by how much every limit of time in a test is multiplied; 1 in a plain build, more
// where a sanitizer or gcov slows it down. tests/CMakeLists.txt sets it.
#pragma once

namespace keyescrow {

#ifdef KEYESCROW_SLOWNESS
inline constexpr int kSlowness = KEYESCROW_SLOWNESS;
#else
inline constexpr int kSlowness = 1;
#endif

}  // namespace keyescrow
