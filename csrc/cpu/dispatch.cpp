// Which CPU variant runs: the best one that this machine has, or the one SSIMLOSS_CPU names.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "variants.h"

namespace ssimloss {
namespace {

std::vector<const CpuKernels*> runnable() {
  std::vector<const CpuKernels*> variants;
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                  __builtin_cpu_supports("lzcnt") && __builtin_cpu_supports("movbe") &&
                  __builtin_cpu_supports("f16c");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  if (v4) variants.push_back(&v4::kernels);
  if (v3) variants.push_back(&v3::kernels);
#endif
  variants.push_back(&baseline::kernels);
  return variants;
}

const CpuKernels& choose() {
  const std::vector<const CpuKernels*> variants = runnable();
  const char* wanted = std::getenv("SSIMLOSS_CPU");
  if (!wanted || !*wanted) return *variants.front();
  std::string names;
  for (const CpuKernels* variant : variants) {
    if (std::strcmp(variant->name, wanted) == 0) return *variant;
    names += std::string(names.empty() ? "" : ", ") + variant->name;
  }
  throw std::invalid_argument("SSIMLOSS_CPU: expected one of " + names + " on this machine, got " + wanted);
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace ssimloss
