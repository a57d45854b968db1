#include "backends/cpu/cpu_features.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

namespace tessera::cpu {

namespace {

// The folder of this process in the unified cgroup hierarchy, and every folder above it: limits of all of
// them hold.
std::vector<std::string> cgroup_folders() {
  std::ifstream list("/proc/self/cgroup");
  std::string line;
  std::vector<std::string> folders{"/sys/fs/cgroup"};
  while (std::getline(list, line)) {
    if (line.rfind("0::/", 0) != 0) continue;
    std::istringstream path(line.substr(4));
    std::string part;
    while (std::getline(path, part, '/')) {
      if (!part.empty() && part != "..") folders.push_back(folders.back() + "/" + part);
    }
  }
  return folders;
}

}  // namespace

Features detect_features() {
  Features features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // f16c came before AVX2 on every processor that has AVX2; the compiler's detection has no name for it
  // everywhere.
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  features.avx512_bf16 = features.avx512 && __builtin_cpu_supports("avx512bf16");
  features.avx512_vbmi = features.avx512 && __builtin_cpu_supports("avx512vbmi");
#endif
  return features;
}

std::vector<size_t> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<size_t> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (size_t i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) cpus.push_back(i);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

size_t usable_threads() {
  size_t threads = allowed_cpus().size();
  for (const std::string& folder : cgroup_folders()) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
      const double cores = std::ceil(std::strtod(quota.c_str(), nullptr) / period);
      if (cores >= 1) threads = std::min(threads, static_cast<size_t>(cores));
    }
  }
  return std::max<size_t>(threads, 1);
}

std::optional<size_t> group_memory_left(const std::string& folder) {
  std::ifstream limit_file(folder + "/memory.max");
  std::ifstream used_file(folder + "/memory.current");
  size_t limit = 0;
  size_t used = 0;
  if (!(limit_file >> limit && used_file >> used)) return std::nullopt;  // "max" is no number
  std::ifstream parts(folder + "/memory.stat");
  std::string name;
  size_t bytes = 0;
  while (parts >> name >> bytes)
    if (name == "inactive_file" || name == "active_file") used -= std::min(used, bytes);
  return limit > used ? limit - used : 0;
}

size_t available_memory() {
  size_t available = 0;
  std::ifstream info("/proc/meminfo");
  std::string name;
  size_t kib = 0;
  std::string unit;
  while (info >> name >> kib) {
    std::getline(info, unit);
    if (name == "MemAvailable:") {
      available = kib * 1024;
      break;
    }
  }
  for (const std::string& folder : cgroup_folders()) {
    if (const std::optional<size_t> left = group_memory_left(folder))
      available = available == 0 ? *left : std::min(available, *left);
  }
  return available;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 < line.size()) return line.substr(colon + 2);
    }
  }
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown processor";
#endif
}

}  // namespace tessera::cpu
