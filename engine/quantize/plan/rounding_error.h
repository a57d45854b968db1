// What encoding a matrix cost: the sums behind the relative error of a tensor, and the table made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/quantize/plan/weight_plan.h"

namespace tessera {

struct ErrorSums {
  double error = 0;  // sum (w - decoded)^2
  double power = 0;  // sum w^2

  void add(const ErrorSums& other) {
    error += other.error;
    power += other.power;
  }
  void add_row(std::span<const float> values, std::span<const double> decoded);
};

// The error of rows [first_row, first_row + count) of a stored matrix [rows, columns]; values are what these
// rows were encoded from.
ErrorSums rounding_error(Scheme scheme, size_t rows, size_t columns, std::span<const std::byte> stored,
                         size_t first_row, std::span<const float> values);

// One line of the summary table: all tensors of one kind ("q", "down", "embedding", …) that became one scheme
// from one type of the checkpoint.
struct QuantizeSummary {
  std::string kind;
  std::string source;  // type in the checkpoint; empty where types are not told apart
  std::string scheme;
  bool kept = false;       // codes, or floats, are those of the checkpoint
  keep::Roundings rounds;  // of kept codes' levels
  size_t tensors = 0;
  uint64_t weights = 0;
  uint64_t bytes = 0;
  double relative_error = 0;  // sqrt(sum (w - decoded)^2 / sum w^2)
};

class SummaryTable {
 public:
  explicit SummaryTable(bool by_source = false) : by_source_(by_source) {}
  void add(const PlannedWeight& weight, uint64_t bytes, const ErrorSums& sums);
  std::vector<QuantizeSummary> lines() const;

 private:
  struct Open {
    QuantizeSummary line;
    ErrorSums sums;
  };
  bool by_source_;
  std::vector<Open> open_;
};

}  // namespace tessera
