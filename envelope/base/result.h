// Result<T>: a value or an Error. No exception crosses our own functions.
#pragma once

#include <tl/expected.hpp>
#include <utility>

#include "envelope/base/error.h"

namespace keyescrow {

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(Error error) : tl::expected<T, Error>(tl::unexpect, std::move(error)) {}  // NOLINT
};

template <>
class [[nodiscard]] Result<void> : public tl::expected<void, Error> {
 public:
  using tl::expected<void, Error>::expected;
  Result() = default;
  Result(Error error) : tl::expected<void, Error>(tl::unexpect, std::move(error)) {}  // NOLINT
};

using Status = Result<void>;

inline Status Ok() { return Status(); }

}  // namespace keyescrow

#define KEYESCROW_CONCAT_INNER(a, b) a##b
#define KEYESCROW_CONCAT(a, b) KEYESCROW_CONCAT_INNER(a, b)

// RETURN_IF_ERROR leaves the function with the Error of `expression`, a Result, if it holds one.
#define RETURN_IF_ERROR(expression)                                            \
  do {                                                                         \
    if (auto return_if_error_result = (expression); !return_if_error_result) { \
      return std::move(return_if_error_result).error();                        \
    }                                                                          \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()) declares x as F's value, or leaves the function with F's Error.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_IMPL(KEYESCROW_CONCAT(result_at_line_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                  \
  if (!temporary) return std::move(temporary).error();            \
  declaration = std::move(*temporary)
