// The table of instruction sets: what this machine can run, and that no kernel is missing.
#include <doctest/doctest.h>

#include <set>
#include <string_view>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/instruction_sets.h"

using namespace tessera;

namespace {

void check_all_there(const cpu::TableKernels& table) {
  for (const cpu::TableCodeKernels& codes : table.codes) {
    CHECK((codes.product != nullptr));
    CHECK((codes.expand != nullptr));
  }
  CHECK((table.product_expanded != nullptr));
}

}  // namespace

TEST_CASE("every usable set is found by its name, the best first and the portable one last") {
  const std::vector<std::string_view> names = usable_instruction_sets();
  REQUIRE_FALSE(names.empty());
  CHECK(names.back() == "portable");
  CHECK(std::set(names.begin(), names.end()).size() == names.size());
  for (const std::string_view name : names) {
    const cpu::Kernels* kernels = cpu::find_kernels(name);
    REQUIRE(kernels != nullptr);
    CHECK(std::string_view(kernels->name).starts_with(name));
  }
  CHECK(cpu::find_kernels(names.front()) == &cpu::best_kernels());
  CHECK(cpu::usable_kernels().front() == &cpu::best_kernels());
  CHECK(cpu::find_kernels("") == nullptr);
  CHECK(cpu::find_kernels("avx") == nullptr);
}

TEST_CASE("no set lacks a kernel") {
  std::set<std::string_view> names;
  for (const cpu::Kernels* kernels : cpu::usable_kernels()) {
    CAPTURE(kernels->name);
    CHECK(names.insert(kernels->name).second);
    CHECK((kernels->integers.product_bytes != nullptr));
    for (const cpu::NibbleKernels& nibbles : {kernels->integers.row_nibbles, kernels->integers.progressive}) {
      CHECK((nibbles.product != nullptr));
      CHECK((nibbles.expand != nullptr));
    }
    CHECK((kernels->floats.product_f32 != nullptr));
    CHECK((kernels->floats.product_f16 != nullptr));
    CHECK((kernels->floats.product_bf16 != nullptr));
    const cpu::Bf16PairKernels& pairs = kernels->floats.bf16_pairs;
    CHECK((pairs.product == nullptr) == (pairs.round_row == nullptr));
    check_all_there(kernels->table_int8);
    check_all_there(kernels->table_bf16);
    CHECK((kernels->rows.rms_norm != nullptr));
    CHECK((kernels->rows.quantize_row != nullptr));
    CHECK((kernels->rows.round_row != nullptr));
    CHECK((kernels->rows.silu_gate != nullptr));
    CHECK((kernels->rows.rotate_head != nullptr));
    CHECK((kernels->rows.maximum != nullptr));
    CHECK((kernels->attention_rows.split_query8 != nullptr));
    CHECK((kernels->attention_rows.split_query4 != nullptr));
    CHECK((kernels->attention_rows.powers != nullptr));
    CHECK((kernels->attention_rows.coarse_powers != nullptr));
    CHECK((kernels->attention_rows.split_weights8 != nullptr));
    CHECK((kernels->attention_rows.split_weights4 != nullptr));
    CHECK((kernels->attention_products.score_keys8 != nullptr));
    CHECK((kernels->attention_products.score_keys4 != nullptr));
    CHECK((kernels->attention_products.add_values8 != nullptr));
    CHECK((kernels->attention_products.add_values4 != nullptr));
    CHECK((kernels->limits.read != nullptr));
    CHECK((kernels->limits.multiply != nullptr));
  }
}
