// Every op of the cpu backend against the reference backend, for each instruction set of this machine and
// several thread counts, on fresh random inputs at odd sizes.
#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>

#include "backends/cpu/cpu_backend.h"
#include "backends/reference/reference_backend.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/op_rig.h"

using namespace tessera;

TEST_CASE("every op of the cpu backend equals the reference") {
  const uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const std::unique_ptr<Backend> reference = make_reference_backend();
  for (const std::string_view isa : usable_instruction_sets()) {
    for (const size_t threads : {size_t{1}, size_t{2}, size_t{5}}) {
      auto made = make_cpu_backend({std::string(isa), threads});
      REQUIRE(made.ok());
      Backend& cpu = *made.value();
      for (const rig::OpCase& test : rig::op_cases(seed + threads)) {
        CAPTURE(test.name);
        CAPTURE(cpu.describe());
        CHECK(rig::difference(test, rig::run_case(*reference, test), rig::run_case(cpu, test)) == "");
      }
    }
  }
}

TEST_CASE("an instruction set the machine lacks is refused by name") {
  auto made = make_cpu_backend({"sse9", 1});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().find("sse9") != std::string::npos);
}
