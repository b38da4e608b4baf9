// Invariants that the Python layer has already made true for users; a raw op call can still break
// them. The message names what failed. std::invalid_argument reaches Python as ValueError.
#pragma once

#include <stdexcept>
#include <string>

namespace ssimloss {

inline void check(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument("ssimloss: " + message);
}

}  // namespace ssimloss
