#include "engine/quantize/lut/trained_scales.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace tessera::quantize {

namespace {

constexpr double kDamping = 0.01;

float dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return static_cast<float>(sum);
}

class Trainer {
 public:
  Trainer(DenseProducts& products, const FloatMatrix& weights, const FloatMatrix& moments)
      : products_(products),
        weights_(weights),
        moments_(moments),
        errors_(weights.rows, weights.columns),
        objective_(weights.rows) {
    double trace = 0;
    for (size_t i = 0; i < moments.rows; ++i)
      trace += static_cast<double>(moments.values[i * moments.columns + i]);
    damping_ = static_cast<float>(kDamping * trace / static_cast<double>(moments.rows));
  }

  // One step of every group's scale (and zero point); afterwards errors and objective are those of the new
  // levels.
  void step(std::span<const uint8_t> codes, std::vector<TableLevels>& levels) {
    const size_t columns = weights_.columns;
    products_.for_each(weights_.rows, [&](size_t row, size_t) {
      for (size_t i = 0; i < columns; ++i)
        errors_.row(row)[i] =
            weights_.row(row)[i] - levels[row].meaning(codes[row * columns + i], levels[row].group_of(i));
      objective_[row] = 0;
    });
    const size_t group_columns = levels.front().group_columns;
    for (size_t first = 0; first < columns; first += group_columns)
      step_group(codes, levels, first, std::min(group_columns, columns - first));
    measure();
  }

  std::span<const double> objective() const { return objective_; }

 private:
  // sum_k a[r][k] moments[first + i][k] over k in [from, from + depth), plus the damping.
  void multiply(const float* a, size_t stride, size_t first, size_t count, size_t from, size_t depth,
                FloatMatrix& out) {
    DenseProduct job;
    job.a = a;
    job.a_stride = stride;
    job.m = weights_.rows;
    job.b = &moments_.values[first * moments_.columns + from];
    job.b_stride = moments_.columns;
    job.n = count;
    job.k = depth;
    job.out = out.values.data();
    job.out_stride = count;
    products_.multiply(job);
  }

  void step_group(std::span<const uint8_t> codes, std::vector<TableLevels>& levels, size_t first,
                  size_t count) {
    const size_t rows = weights_.rows;
    const size_t columns = weights_.columns;
    const size_t index = first / levels.front().group_columns;
    const bool zero_points = levels.front().table == nullptr;
    // The gradient's share of this group, and what the codes' values give when multiplied like an error.
    FloatMatrix gradient(rows, count);
    FloatMatrix values(rows, count);
    FloatMatrix curved(rows, count);
    multiply(errors_.values.data(), columns, first, count, 0, columns, gradient);
    products_.for_each(rows, [&](size_t row, size_t) {
      TableLevels::Group unit = levels[row].groups[index];
      unit.scale = 1;
      for (size_t i = 0; i < count; ++i)
        values.row(row)[i] = levels[row].meaning(codes[row * columns + first + i], unit);
    });
    multiply(values.values.data(), count, first, count, first, count, curved);
    std::vector<float> ones_curved(zero_points ? count : 0);  // the group's moments times ones
    float ones_second = 0;
    for (size_t i = 0; i < ones_curved.size(); ++i) {
      double sum = static_cast<double>(damping_);
      for (size_t j = 0; j < count; ++j)
        sum += static_cast<double>(moments_.values[(first + i) * columns + first + j]);
      ones_curved[i] = static_cast<float>(sum);
      ones_second += ones_curved[i];
    }
    products_.for_each(rows, [&](size_t row, size_t) {
      TableLevels::Group& group = levels[row].groups[index];
      if (group.scale == 0.0f) return;
      const std::span<float> error = errors_.row(row).subspan(first, count);
      const std::span<float> value = values.row(row);
      const std::span<float> slope = gradient.row(row);
      for (size_t i = 0; i < count; ++i) {
        slope[i] += damping_ * error[i];
        curved.row(row)[i] += damping_ * value[i];
      }
      // error - change * value has the objective: former - 2 change first + change^2 second
      const float second = dot(value, curved.row(row));
      const float scale =
          second > 0
              ? stored_group_scale(static_cast<double>(group.scale) +
                                   static_cast<double>(dot(value, slope)) / static_cast<double>(second))
              : 0.0f;
      if (scale > 0 && std::isfinite(scale)) {
        const float change = scale - group.scale;
        if (change * (change * second - 2 * dot(value, slope)) < 0) {
          group.scale = scale;
          for (size_t i = 0; i < count; ++i) {
            error[i] -= change * value[i];
            slope[i] -= change * curved.row(row)[i];
          }
        }
      }
      if (!zero_points || !(ones_second > 0)) return;
      // A larger zero point moves every weight of the group down by a scale.
      double first_order = 0;
      for (const float each : slope) first_order += static_cast<double>(each);
      const double best = -first_order / static_cast<double>(ones_second);
      const float zero =
          stored_group_zero(static_cast<double>(group.zero) + best / static_cast<double>(group.scale));
      const float shift = group.scale * (zero - group.zero);  // added to every error
      const double gain = static_cast<double>(shift) *
                          (static_cast<double>(shift) * static_cast<double>(ones_second) + 2 * first_order);
      if (!(gain < 0)) return;
      group.zero = zero;
      for (float& each : error) each += shift;
    });
  }

  void measure() {
    const size_t columns = weights_.columns;
    constexpr size_t kBlock = 512;
    for (size_t first = 0; first < columns; first += kBlock) {
      const size_t count = std::min(kBlock, columns - first);
      FloatMatrix product(weights_.rows, count);
      multiply(errors_.values.data(), columns, first, count, 0, columns, product);
      products_.for_each(weights_.rows, [&](size_t row, size_t) {
        const std::span<const float> error = errors_.row(row).subspan(first, count);
        for (size_t i = 0; i < count; ++i)
          objective_[row] +=
              static_cast<double>(error[i]) * (static_cast<double>(product.row(row)[i]) +
                                               static_cast<double>(damping_) * static_cast<double>(error[i]));
      });
    }
  }

  DenseProducts& products_;
  const FloatMatrix& weights_;
  const FloatMatrix& moments_;
  float damping_ = 0;
  FloatMatrix errors_;             // weights - meanings
  std::vector<double> objective_;  // [rows]
};

}  // namespace

std::vector<uint8_t> train_scales(DenseProducts& products, const FloatMatrix& weights,
                                  const FloatMatrix& moments, int rounds, const ChooseCodes& choose_codes,
                                  std::vector<TableLevels>& levels) {
  assert(levels.size() == weights.rows && moments.rows == weights.columns);
  const size_t columns = weights.columns;
  Trainer trainer(products, weights, moments);
  std::vector<uint8_t> best_codes(weights.rows * columns);
  std::vector<TableLevels> best = levels;
  std::vector<double> best_objective(weights.rows, std::numeric_limits<double>::infinity());
  for (int round = 0; round < rounds; ++round) {
    const std::vector<uint8_t> codes = choose_codes(levels);
    trainer.step(codes, levels);
    products.for_each(weights.rows, [&](size_t row, size_t) {
      if (!(trainer.objective()[row] < best_objective[row])) return;
      best_objective[row] = trainer.objective()[row];
      best[row] = levels[row];
      std::copy_n(codes.begin() + static_cast<std::ptrdiff_t>(row * columns), columns,
                  best_codes.begin() + static_cast<std::ptrdiff_t>(row * columns));
    });
  }
  levels = std::move(best);
  return best_codes;
}

}  // namespace tessera::quantize
