// What cannot run is refused with the same line by every backend of the CPU; tests of the CUDA backend check
// the same table.
#include "tests/unit/backend_faults.h"

#include <doctest/doctest.h>

#include <iostream>
#include <memory>
#include <random>
#include <string>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "backends/split/split_backend.h"

using namespace tessera;

namespace {

rig::Random seeded() {
  const uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  return rig::Random(seed);
}

std::unique_ptr<Backend> cpu(std::string_view isa) {
  return rig::unwrap(make_cpu_backend({std::string(isa), 2}), "cpu");
}

}  // namespace

TEST_CASE("the reference backend refuses every fault") {
  rig::Random random = seeded();
  rig::check_all_faults(*make_reference_backend(), *make_reference_backend(), random);
}

TEST_CASE("the cpu backend refuses every fault with each instruction set") {
  rig::Random random = seeded();
  for (const std::string_view isa : usable_instruction_sets())
    rig::check_all_faults(*cpu(isa), *cpu(isa), random);
}

TEST_CASE("a backend made of two refuses every fault, whichever gives the logits") {
  rig::Random random = seeded();
  for (const bool cpu_first : {true, false}) {
    const auto both = [&] {
      return make_split_backend(cpu_first ? cpu("auto") : make_reference_backend(),
                                cpu_first ? make_reference_backend() : cpu("auto"), 1);
    };
    rig::check_all_faults(*both(), *both(), random);
  }
}

TEST_CASE("a cache that finds no memory is refused with its size") {
  const std::unique_ptr<Backend> backend = make_reference_backend();
  CHECK(backend->kv_page_bytes({2, 3, 16, 4, 1}).full == 2 * 3 * 16 * 64 * 2 * sizeof(double));
  const KvGeometry small{1, 1, 8, 8, 0};
  const size_t pages = rig::kHuge / backend->kv_page_bytes(small).full;
  CHECK(backend->create_kv(small, pages).error() ==
        fmt::format("kv cache: no memory for {} pages of 8192 bytes", pages));
}
