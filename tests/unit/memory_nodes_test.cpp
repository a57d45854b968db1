// Memory nodes: what the system's lists mean, and weights that were copied onto nodes.
#include "backends/cpu/memory_nodes.h"

#include <doctest/doctest.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/cpu_features.h"
#include "backends/cpu/placed_weights.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

namespace tessera {

namespace {

class NodeFolder {
 public:
  NodeFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tessera-nodes-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~NodeFolder() {
    std::error_code none;
    std::filesystem::remove_all(path_, none);
  }
  NodeFolder(const NodeFolder&) = delete;
  NodeFolder& operator=(const NodeFolder&) = delete;

  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << '\n';
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> random_bytes(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

}  // namespace

TEST_CASE("core lists are read as the system writes them") {
  CHECK(cpu::parse_cpu_list("0") == std::vector<size_t>{0});
  CHECK(cpu::parse_cpu_list("0-3,8,10-11") == std::vector<size_t>{0, 1, 2, 3, 8, 10, 11});
  for (const char* broken : {"", "x", "3-1", "1-", "0-99999999", "1;2"})
    CHECK_MESSAGE(cpu::parse_cpu_list(broken).empty(), broken);
}

TEST_CASE("nodes are those with cores this process may use") {
  const std::vector<size_t> usable = cpu::allowed_cpus();
  const NodeFolder folder;
  CHECK(cpu::MemoryNodes::detect(folder.path()).nodes() == std::vector<size_t>{0});  // nothing told
  folder.write("online", "0,2-3");
  folder.write("node0/cpulist", "70000-70001");  // beyond any list: unreadable
  folder.write("node2/cpulist", std::to_string(usable.front()));
  folder.write("node3/cpulist", "60000");
  const cpu::MemoryNodes nodes = cpu::MemoryNodes::detect(folder.path());
  CHECK(nodes.nodes() == std::vector<size_t>{2});
  CHECK(nodes.node_of(usable.front()) == 2);
  CHECK(nodes.node_of(60000) == 3);
  CHECK(nodes.node_of(61000) == 2);
}

TEST_CASE("what a group has read from files is no burden on its memory") {
  const NodeFolder group;
  CHECK_FALSE(cpu::group_memory_left(group.path()));
  group.write("memory.max", "max");
  group.write("memory.current", "3999000000");
  CHECK_FALSE(cpu::group_memory_left(group.path()));
  group.write("memory.max", "4000000000");
  CHECK(cpu::group_memory_left(group.path()) == 1000000);
  group.write("memory.stat",
              "anon 90000000\nfile 3900000000\ninactive_file 3000000000\nactive_file 800000000");
  CHECK(cpu::group_memory_left(group.path()) == 3801000000);
  group.write("memory.stat", "inactive_file 5000000000");  // read a moment later
  CHECK(cpu::group_memory_left(group.path()) == 4000000000);
  group.write("memory.stat", "");
  group.write("memory.current", "4000000001");
  CHECK(cpu::group_memory_left(group.path()) == 0);
}

TEST_CASE("limits of groups of version 1") {
  const NodeFolder group;
  group.write("memory.limit_in_bytes", "9223372036854771712");  // none
  group.write("memory.usage_in_bytes", "20000000");
  CHECK_FALSE(cpu::group_memory_left(group.path()));
  group.write("memory.limit_in_bytes", "104857600");
  CHECK(cpu::group_memory_left(group.path()) == 84857600);
  group.write("memory.stat", "inactive_file 1\ntotal_inactive_file 5000000\ntotal_active_file 1000000");
  CHECK(cpu::group_memory_left(group.path()) == 90857600);

  CHECK_FALSE(cpu::group_cores(group.path()));
  group.write("cpu.cfs_quota_us", "-1");
  group.write("cpu.cfs_period_us", "100000");
  CHECK_FALSE(cpu::group_cores(group.path()));
  group.write("cpu.cfs_quota_us", "250000");
  CHECK(cpu::group_cores(group.path()) == 3);
  group.write("cpu.cfs_quota_us", "1000");
  CHECK(cpu::group_cores(group.path()) == 1);
  const NodeFolder second;
  second.write("cpu.max", "max 100000");
  CHECK_FALSE(cpu::group_cores(second.path()));
  second.write("cpu.max", "150000 100000");
  CHECK(cpu::group_cores(second.path()) == 2);
}

TEST_CASE("a placed copy has the same bytes, on the node that was asked for") {
  const uint64_t seed = std::random_device{}();
  std::cout << "placed copy: seed " << seed << '\n';
  std::mt19937_64 random(seed);
  for (const cpu::NumaMode mode : {cpu::NumaMode::local, cpu::NumaMode::interleave}) {
    for (int round = 0; round < 20; ++round) {
      const size_t threads = 1 + random() % 5;
      const std::vector<std::byte> bytes = random_bytes(1 + random() % 100'000, random());
      cpu::Placement placement{mode, {0}, std::vector<size_t>(threads, 0)};
      // Nodes that do not exist are refused by the system and cost nothing else.
      if (round % 2 == 1) {
        placement.nodes.push_back(900);
        for (size_t& node : placement.node_of_thread) node = random() % 2 == 0 ? 0 : 900;
      }
      std::vector<cpu::ThreadShare> shares;
      const size_t panels = bytes.size() - bytes.size() / 7;
      for (size_t thread = 0; thread < threads; ++thread)
        shares.push_back({panels * thread / threads, panels * (thread + 1) / threads, thread});
      const cpu::ReservedMemory copy = cpu::place_copy(placement, bytes, shares);
      REQUIRE(copy.size() == bytes.size());
      CHECK(std::memcmp(copy.base(), bytes.data(), bytes.size()) == 0);
      int node = -1;
      if (syscall(SYS_get_mempolicy, &node, nullptr, 0, copy.base(), MPOL_F_NODE | MPOL_F_ADDR) != 0) {
        std::cout << "skipped: this system does not tell where memory lies\n";
      } else if (cpu::MemoryNodes::detect().count() == 1) {
        CHECK(node == 0);
      }
    }
  }
}

TEST_CASE("weights on several nodes give the same results") {
  const std::vector<size_t> usable = cpu::allowed_cpus();
  if (usable.size() < 2) {
    std::cout << "skipped: two nodes need two cores\n";
    return;
  }
  // Two nodes, one of which the machine may not have: its pages then lie where the system likes.
  const NodeFolder folder;
  folder.write("online", "0-1");
  folder.write("node0/cpulist", std::to_string(usable.front()));
  folder.write("node1/cpulist", std::to_string(usable.back()));
  const auto backend = [&](const char* mode) {
    CpuBackendOptions options;
    options.threads = 2;
    options.numa = mode;
    options.node_folder = folder.path();
    auto made = make_cpu_backend(options);
    REQUIRE(made.ok());
    return std::move(made.value());
  };
  const auto off = backend("off");
  const auto local = backend("local");
  const auto interleaved = backend("interleave");
  CHECK(off->describe().find("memory node") == std::string::npos);
  CHECK(local->describe().find("weights local to their threads on 2 memory nodes") != std::string::npos);
  CHECK(interleaved->describe().find("weights interleaved over 2 memory nodes") != std::string::npos);
  const uint64_t seed = std::random_device{}();
  std::cout << "weights on nodes: seed " << seed << '\n';
  for (const rig::OpCase& test : rig::op_cases(seed)) {
    CAPTURE(test.name);
    const std::vector<float> expected = rig::run_case(*off, test);
    CHECK(rig::run_case(*local, test) == expected);
    CHECK(rig::run_case(*interleaved, test) == expected);
  }
}

}  // namespace tessera
