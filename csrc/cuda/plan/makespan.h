// When the last of many blocks is done, where they are not equally long. Host side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>

namespace ssimloss {

// Of blocks[j] blocks that take each[j], from the last kind to the first; so many run at once, and where one
// is done the next one starts.
inline double makespan(int64_t at_once, const int64_t* blocks, const double* each, int kinds) {
  std::map<double, int64_t> done{{0., at_once}};  // when, and how many
  double rounds = 0;
  for (int j = kinds - 1; j >= 0; --j) {
    for (int64_t left = blocks[j]; left > 0;) {
      const auto first = done.begin();
      if (left >= at_once && done.rbegin()->first - first->first <= each[j]) {  // one more each, in turn
        rounds += double(left / at_once) * each[j], left %= at_once;
        continue;
      }
      const int64_t now = std::min(left, first->second);
      done[first->first + each[j]] += now;
      left -= now;
      if ((first->second -= now) == 0) done.erase(first);
    }
  }
  return rounds + done.rbegin()->first;
}

}  // namespace ssimloss
