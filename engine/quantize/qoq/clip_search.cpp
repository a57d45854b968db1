// Searches the clip ratio of each output row by the error of the layer's output on sampled inputs.
#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "engine/codec/row_levels.h"
#include "engine/quantize/qoq/rounded_matrix.h"

namespace tessera::quantize {

namespace {

constexpr size_t kRatios = 81;
// Ratios are tried in falling order, kStep at a time. A row is finished when all of them have more than
// kStopFactor times the smallest error so far: by then clipping costs more than its finer steps can win back.
// On the layers measured for docs/quantization.md no row would have chosen otherwise with all 81.
constexpr size_t kStep = 8;
constexpr double kStopFactor = 3.0;
// Errors of weights multiplied with the sample at once: 32 MiB of floats.
constexpr size_t kBatchFloats = size_t{8} << 20;

float ratio(size_t index) { return static_cast<float>(1.0 - 0.8 * static_cast<double>(index) / 80.0); }

// One row with one ratio.
struct Candidate {
  size_t row = 0;
  size_t index = 0;
};

double squared_sum(std::span<const float> values) {
  std::array<double, 8> lanes{};
  const size_t whole = values.size() / lanes.size() * lanes.size();
  for (size_t i = 0; i < whole; i += lanes.size()) {
    for (size_t j = 0; j < lanes.size(); ++j) {
      const double value = values[i + j];
      lanes[j] += value * value;
    }
  }
  for (size_t i = whole; i < values.size(); ++i) {
    const double value = values[i];
    lanes[i - whole] += value * value;
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

class Search {
 public:
  Search(DenseProducts& products, Scheme scheme, const FloatMatrix& weights, const FloatMatrix* sample)
      : products_(products),
        scheme_(scheme),
        weights_(weights),
        sample_(sample),
        levels_(products.threads()),
        best_(weights.rows, 0),
        best_error_(weights.rows, std::numeric_limits<double>::infinity()),
        step_error_(weights.rows) {}

  std::vector<float> run() {
    std::vector<size_t> open(weights_.rows);
    std::iota(open.begin(), open.end(), size_t{0});
    for (size_t first = 0; first < kRatios && !open.empty(); first += kStep) {
      std::vector<Candidate> candidates;
      for (const size_t row : open) {
        for (size_t index = first; index < std::min(first + kStep, kRatios); ++index)
          candidates.push_back({row, index});
      }
      std::fill(step_error_.begin(), step_error_.end(), std::numeric_limits<double>::infinity());
      const size_t batch =
          std::max<size_t>(1, kBatchFloats / (weights_.columns + (sample_ != nullptr ? sample_->rows : 0)));
      for (size_t start = 0; start < candidates.size(); start += batch)
        evaluate(std::span(candidates).subspan(start, std::min(batch, candidates.size() - start)));
      std::erase_if(open, [&](size_t row) { return step_error_[row] > kStopFactor * best_error_[row]; });
    }
    std::vector<float> clips(weights_.rows);
    std::transform(best_.begin(), best_.end(), clips.begin(), ratio);
    return clips;
  }

 private:
  void evaluate(std::span<const Candidate> candidates) {
    const size_t columns = weights_.columns;
    differences_.resize(candidates.size() * columns);
    products_.for_each(candidates.size(), [&](size_t i, size_t thread) {
      const std::span<const float> row = weights_.row(candidates[i].row);
      const std::span<float> difference = std::span(differences_).subspan(i * columns, columns);
      RowLevels& levels = levels_[thread];
      fit_levels(scheme_, row, ratio(candidates[i].index), levels);
      levels.round(row, difference);
      for (size_t column = 0; column < columns; ++column)
        difference[column] = row[column] - difference[column];
    });
    std::span<const float> deviations = differences_;
    size_t length = columns;
    if (sample_ != nullptr) {
      length = sample_->rows;
      outputs_.resize(candidates.size() * length);
      DenseProduct job;
      job.a = differences_.data();
      job.a_stride = columns;
      job.m = candidates.size();
      job.b = sample_->values.data();
      job.b_stride = columns;
      job.n = length;
      job.k = columns;
      job.out = outputs_.data();
      job.out_stride = length;
      products_.multiply(job);
      deviations = outputs_;
    }
    errors_.resize(candidates.size());
    products_.for_each(candidates.size(), [&](size_t i, size_t) {
      errors_[i] = squared_sum(deviations.subspan(i * length, length));
    });
    for (size_t i = 0; i < candidates.size(); ++i) {
      const size_t row = candidates[i].row;
      step_error_[row] = std::min(step_error_[row], errors_[i]);
      if (errors_[i] >= best_error_[row]) continue;
      best_error_[row] = errors_[i];
      best_[row] = candidates[i].index;
    }
  }

  DenseProducts& products_;
  Scheme scheme_;
  const FloatMatrix& weights_;
  const FloatMatrix* sample_;       // null: the error of the weights themselves
  std::vector<RowLevels> levels_;   // one for each thread
  std::vector<float> differences_;  // [candidates, columns]
  std::vector<float> outputs_;      // [candidates, sample rows]
  std::vector<double> errors_;      // [candidates]
  std::vector<size_t> best_;        // [rows] index of the best ratio so far
  std::vector<double> best_error_;  // [rows]
  std::vector<double> step_error_;  // [rows] smallest of the ratios tried last
};

}  // namespace

std::vector<float> search_row_clips(DenseProducts& products, Scheme scheme, const FloatMatrix& weights,
                                    const FloatMatrix& sample) {
  if (!has_row_scales(scheme) || sample.rows == 0) return std::vector<float>(weights.rows, 1.0f);
  return Search(products, scheme, weights, &sample).run();
}

std::vector<float> search_row_clips(DenseProducts& products, Scheme scheme, const FloatMatrix& weights) {
  if (!has_row_scales(scheme)) return std::vector<float>(weights.rows, 1.0f);
  return Search(products, scheme, weights, nullptr).run();
}

}  // namespace tessera::quantize
