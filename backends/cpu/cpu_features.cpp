#include "backends/cpu/cpu_features.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::cpu {

namespace {

// The folders below root that limit this process in one hierarchy of control groups: root, the group's own
// folder, and every one between; limits of all of them hold. Of version 2 there is one hierarchy, whose lines
// in /proc/self/cgroup begin "0::"; of version 1 one for each controller: "4:memory:/group",
// "3:cpu,cpuacct:/group".
std::vector<std::string> cgroup_folders(const std::string& root, std::string_view controller) {
  std::ifstream list("/proc/self/cgroup");
  std::string line;
  std::vector<std::string> folders{root};
  while (std::getline(list, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string name = "," + std::string(controller) + ",";
    if (controller.empty() ? controllers != name : controllers.find(name) == std::string::npos) continue;
    std::istringstream path(line.substr(second + 1));
    std::string part;
    while (std::getline(path, part, '/')) {
      if (!part.empty() && part != "..") folders.push_back(folders.back() + "/" + part);
    }
  }
  return folders;
}

constexpr const char* kCgroups = "/sys/fs/cgroup";

// Cores that a quota of processor time in a period is worth; nothing for no quota.
std::optional<size_t> cores_of(double quota, double period) {
  if (!(quota > 0 && period > 0)) return std::nullopt;
  return std::max<size_t>(static_cast<size_t>(std::ceil(quota / period)), 1);
}

// All folders whose limits on that resource hold, of both versions.
std::vector<std::string> limiting_folders(const char* controller) {
  std::vector<std::string> folders = cgroup_folders(kCgroups, "");
  for (std::string& folder : cgroup_folders(std::string(kCgroups) + "/" + controller, controller))
    folders.push_back(std::move(folder));
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

std::optional<size_t> group_cores(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");  // version 2: "QUOTA PERIOD", or "max PERIOD"
  std::string quota;
  double period = 0;
  if (file >> quota >> period) return cores_of(std::strtod(quota.c_str(), nullptr), period);
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");  // version 1: -1 without a quota
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double microseconds = 0;
  if (quota_file >> microseconds && period_file >> period) return cores_of(microseconds, period);
  return std::nullopt;
}

size_t usable_threads() {
  size_t threads = allowed_cpus().size();
  for (const std::string& folder : limiting_folders("cpu"))
    if (const std::optional<size_t> cores = group_cores(folder)) threads = std::min(threads, *cores);
  return std::max<size_t>(threads, 1);
}

std::optional<size_t> group_memory_left(const std::string& folder) {
  const auto read = [&](const char* name) {
    std::ifstream file(folder + name);
    size_t bytes = 0;
    return file >> bytes ? std::optional(bytes) : std::nullopt;  // "max" is no number
  };
  std::optional<size_t> limit = read("/memory.max");
  std::optional<size_t> used = read("/memory.current");
  if (!limit || !used) {  // version 1, where no limit is a number beyond all memory
    limit = read("/memory.limit_in_bytes");
    used = read("/memory.usage_in_bytes");
    constexpr size_t kNoLimit = size_t{1} << 60;
    if (!limit || !used || *limit >= kNoLimit) return std::nullopt;
  }
  // Version 1 counts the groups below under names of their own.
  const bool totals = read("/memory.limit_in_bytes").has_value();
  std::ifstream parts(folder + "/memory.stat");
  std::string name;
  size_t bytes = 0;
  while (parts >> name >> bytes)
    if (totals ? name == "total_inactive_file" || name == "total_active_file"
               : name == "inactive_file" || name == "active_file")
      *used -= std::min(*used, bytes);
  return *limit > *used ? *limit - *used : 0;
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
  for (const std::string& folder : limiting_folders("memory")) {
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
