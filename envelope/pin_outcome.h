// PinOutcome: what a PinProvider (factor.h) is as well where it wants to know of its PIN's fate.
#pragma once

namespace keyescrow::envelope {

class PinOutcome {
 public:
  virtual ~PinOutcome() = default;
  // Accepted tells that the token took the PIN of the last request. Whatever else came of the login
  // may have used a try.
  virtual void Accepted() = 0;
};

}  // namespace keyescrow::envelope
