#include "backends/cpu/memory_nodes.h"

#include <fmt/format.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>

#include "backends/cpu/cpu_features.h"

namespace tessera::cpu {

namespace {

constexpr size_t kMostNodes = 1024;
constexpr size_t kMostCpus = size_t{1} << 16;
constexpr size_t kMaskBits = 8 * sizeof(unsigned long);

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

std::vector<size_t> parse_cpu_list(const std::string& text) {
  std::vector<size_t> cpus;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    size_t first = 0;
    size_t last = 0;
    char dash = 0;
    std::istringstream in(part);
    if (!(in >> first)) return {};
    if (in >> dash) {
      if (dash != '-' || !(in >> last)) return {};
    } else {
      last = first;
    }
    if (last < first || last >= kMostCpus) return {};
    for (size_t cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

MemoryNodes MemoryNodes::detect(const std::string& folder) {
  MemoryNodes found;
  const std::vector<size_t> usable = allowed_cpus();
  for (const size_t node : parse_cpu_list(first_line(folder + "/online"))) {
    if (node >= kMostNodes) continue;
    bool has_usable_core = false;
    for (const size_t cpu : parse_cpu_list(first_line(fmt::format("{}/node{}/cpulist", folder, node)))) {
      if (cpu >= found.by_cpu_.size()) found.by_cpu_.resize(cpu + 1, kMostNodes);
      found.by_cpu_[cpu] = node;
      has_usable_core = has_usable_core || std::find(usable.begin(), usable.end(), cpu) != usable.end();
    }
    if (has_usable_core) found.nodes_.push_back(node);
  }
  if (found.nodes_.empty()) found.nodes_.push_back(0);
  return found;
}

size_t MemoryNodes::node_of(size_t cpu) const {
  if (cpu >= by_cpu_.size() || by_cpu_[cpu] == kMostNodes) return nodes_.front();
  return by_cpu_[cpu];
}

bool prefer_nodes(std::span<std::byte> memory, std::span<const size_t> nodes) {
  std::array<unsigned long, kMostNodes / kMaskBits> mask{};
  for (const size_t node : nodes) mask[node / kMaskBits] |= 1ul << (node % kMaskBits);
  const int mode = nodes.size() == 1 ? MPOL_PREFERRED : MPOL_INTERLEAVE;
  return syscall(SYS_mbind, memory.data(), memory.size(), mode, mask.data(), kMostNodes + 1, 0) == 0;
}

}  // namespace tessera::cpu
