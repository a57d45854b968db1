// Machines with several memory nodes (NUMA): which cores belong to which, and putting memory onto one.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace tessera::cpu {

enum class NumaMode {
  off,         // memory lies wherever the system put it
  local,       // every row of weights on the node of the thread that reads it
  interleave,  // pages of weights dealt to all nodes round robin
};

class MemoryNodes {
 public:
  // What the system lists under `folder`, limited to the cores this process may use. A machine that lists
  // nothing has one node.
  static MemoryNodes detect(const std::string& folder = "/sys/devices/system/node");

  size_t count() const { return nodes_.size(); }  // nodes with a usable core, at least 1
  const std::vector<size_t>& nodes() const { return nodes_; }
  size_t node_of(size_t cpu) const;  // the first node for an unknown core

 private:
  std::vector<size_t> nodes_;   // the system's numbers, in order
  std::vector<size_t> by_cpu_;  // node of each core
};

// Cores in a list as the system writes it ("0-3,8,10-11"); empty for one that cannot be read.
std::vector<size_t> parse_cpu_list(const std::string& text);

// Requests that the system takes untouched whole pages of memory from these nodes: one is preferred, several
// are interleaved. False when it refuses, which costs speed only. memory begins at a page.
bool prefer_nodes(std::span<std::byte> memory, std::span<const size_t> nodes);

}  // namespace tessera::cpu
