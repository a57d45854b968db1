// What the machine offers: instruction sets, cores this process may use, memory that is left.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace tessera::cpu {

struct Features {
  bool avx2 = false;         // AVX2, FMA and F16C
  bool avx512 = false;       // AVX-512 F, BW, VL, DQ and VNNI
  bool avx512_bf16 = false;  // and its bfloat16 dot product
  bool avx512_vbmi = false;  // and its byte permutation
};

Features detect_features();
// CPU numbers of the affinity mask, in order.
std::vector<size_t> allowed_cpus();
// Threads worth starting: the affinity mask, limited by the cgroup's CPU quota (rounded up), at least 1.
size_t usable_threads();
// Cores that the quota of the cgroup of this folder is worth, of version 1 or 2; nothing without a quota.
std::optional<size_t> group_cores(const std::string& folder);
// Bytes that the cgroup of this folder, of version 1 or 2, may still take, where it has a limit. What it has
// read from files counts as free: the system takes it back when needed.
std::optional<size_t> group_memory_left(const std::string& folder);
// Bytes that can still be allocated: MemAvailable, limited by the cgroup's memory limit; 0 when unknown.
size_t available_memory();
std::string processor_name();  // "AMD EPYC 9B14", or the architecture when the system does not tell

}  // namespace tessera::cpu
