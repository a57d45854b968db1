#include "engine/quantize/lut/kmeans_table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/codec/normal_float.h"
#include "engine/quantize/lut/scale_search.h"

namespace tessera::quantize {

namespace {

constexpr size_t kBins = 4096;
constexpr double kEdge = 1.25;  // values beyond it fall into the outermost bins with their own size
constexpr size_t kStrips = 16;  // of rows, each with a histogram of its own: sums do not depend on threads
// Larger matrices are represented by evenly spread rows with about this many weights.
constexpr size_t kMostWeights = size_t{1} << 20;
constexpr int kRounds = 8;  // of new scales
constexpr int kSteps = 50;  // of Lloyd's algorithm for the same scales
constexpr double kSmallestGain = 1e-4;

struct Bin {
  double weight = 0;
  double moment = 0;  // weight * value
};

struct Histogram {
  std::vector<Bin> bins = std::vector<Bin>(kBins);
  double error = 0;  // of the weights under the scales and the table

  void add(double value, double weight) {
    const double place = (value + kEdge) / (2 * kEdge) * static_cast<double>(kBins);
    const double inside = std::clamp(place, 0.0, static_cast<double>(kBins - 1));
    Bin& bin = bins[static_cast<size_t>(inside)];
    bin.weight += weight;
    bin.moment += weight * value;
  }
};

Histogram measured(DenseProducts& products, const TableFormat& format, const FloatMatrix& weights,
                   std::span<const float> importance, bool scale_search, const ValueTable& table) {
  // Evenly spread rows.
  const size_t rows = std::clamp<size_t>(kMostWeights / weights.columns, 1, weights.rows);
  std::vector<Histogram> strips(std::min(kStrips, rows));
  products.for_each(strips.size(), [&](size_t strip, size_t) {
    TableLevels levels;
    for (size_t i = strip * rows / strips.size(); i < (strip + 1) * rows / strips.size(); ++i) {
      const std::span<const float> values = weights.row(i * weights.rows / rows);
      if (scale_search)
        search_levels(format, &table, values, importance, levels);
      else
        fit_levels(format, &table, values, levels);
      for (size_t column = 0; column < values.size(); ++column) {
        const TableLevels::Group& group = levels.group_of(column);
        if (group.scale == 0.0f) continue;
        const double weight = importance.empty() ? 1.0 : static_cast<double>(importance[column]);
        const double scale = static_cast<double>(group.scale);
        const double value = static_cast<double>(values[column]);
        strips[strip].add(value / scale, weight * scale * scale);
        const double error =
            value - static_cast<double>(levels.meaning(levels.code(values[column], group), group));
        strips[strip].error += weight * error * error;
      }
    }
  });
  for (size_t strip = 1; strip < strips.size(); ++strip) {
    strips[0].error += strips[strip].error;
    for (size_t bin = 0; bin < kBins; ++bin) {
      strips[0].bins[bin].weight += strips[strip].bins[bin].weight;
      strips[0].bins[bin].moment += strips[strip].bins[bin].moment;
    }
  }
  return std::move(strips[0]);
}

// The best centres for the values of coarse bins, by dynamic programming over the least error of the first n
// bins in k clusters; where the last cluster begins rises with n. Lloyd's steps alone would stay near the
// table that they start from.
class BestClusters {
 public:
  explicit BestClusters(const Histogram& histogram) : sums_(kCoarse + 1) {
    constexpr size_t kFine = kBins / kCoarse;
    for (size_t i = 0; i < kCoarse; ++i) {
      sums_[i + 1] = sums_[i];
      for (size_t j = i * kFine; j < (i + 1) * kFine; ++j) {
        const Bin& bin = histogram.bins[j];
        sums_[i + 1].weight += bin.weight;
        sums_[i + 1].moment += bin.moment;
      }
    }
  }

  // Centres in rising order; those of empty clusters are left as they are.
  void find(std::span<double> centres) {
    std::vector<double> former(kCoarse + 1);
    std::vector<double> least(kCoarse + 1);
    std::vector<std::vector<size_t>> begins(centres.size(), std::vector<size_t>(kCoarse + 1));
    for (size_t n = 0; n <= kCoarse; ++n) least[n] = gain(0, n);
    for (size_t k = 1; k < centres.size(); ++k) {
      former.swap(least);
      extend(former, least, begins[k], {0, kCoarse}, {0, kCoarse});
    }
    size_t end = kCoarse;
    for (size_t k = centres.size(); k-- > 0;) {
      const size_t begin = begins[k][end];
      const double weight = sums_[end].weight - sums_[begin].weight;
      if (weight > 0) centres[k] = (sums_[end].moment - sums_[begin].moment) / weight;
      end = begin;
    }
  }

 private:
  static constexpr size_t kCoarse = 512;
  struct Range {
    size_t first, last;
  };

  // How much bins [begin, end) as one cluster change the squared error that no table at all would have.
  double gain(size_t begin, size_t end) const {
    const double weight = sums_[end].weight - sums_[begin].weight;
    const double moment = sums_[end].moment - sums_[begin].moment;
    return weight > 0 ? -moment * moment / weight : 0.0;
  }

  // least[n] for n in ends, the last cluster beginning within `begins`: the middle one first, whose place
  // bounds the others'.
  void extend(std::span<const double> former, std::span<double> least, std::span<size_t> places, Range ends,
              Range begins) const {
    if (ends.first > ends.last) return;
    const size_t n = (ends.first + ends.last) / 2;
    size_t place = begins.first;
    double best = std::numeric_limits<double>::infinity();
    for (size_t begin = begins.first; begin <= std::min(begins.last, n); ++begin) {
      const double error = former[begin] + gain(begin, n);
      if (!(error < best)) continue;
      best = error;
      place = begin;
    }
    least[n] = best;
    places[n] = place;
    if (n > ends.first) extend(former, least, places, {ends.first, n - 1}, {begins.first, place});
    extend(former, least, places, {n + 1, ends.last}, {place, begins.last});
  }

  std::vector<Bin> sums_;  // of the bins before
};

// Lloyd's steps until the centres stand still. A centre without values stays where it is.
void improve(const Histogram& histogram, std::span<double> centres) {
  for (int step = 0; step < kSteps; ++step) {
    double moved = 0;
    size_t bin = 0;
    for (size_t i = 0; i < centres.size(); ++i) {
      Bin sum;
      const double limit = i + 1 < centres.size() ? 0.5 * (centres[i] + centres[i + 1])
                                                  : std::numeric_limits<double>::infinity();
      for (; bin < kBins; ++bin) {
        const double middle =
            (static_cast<double>(bin) + 0.5) * 2 * kEdge / static_cast<double>(kBins) - kEdge;
        if (middle > limit) break;
        sum.weight += histogram.bins[bin].weight;
        sum.moment += histogram.bins[bin].moment;
      }
      if (!(sum.weight > 0)) continue;
      const double centre = sum.moment / sum.weight;
      moved = std::max(moved, std::abs(centre - centres[i]));
      centres[i] = centre;
    }
    if (moved < 1e-6) return;
  }
}

}  // namespace

ValueTable kmeans_table(DenseProducts& products, const TableFormat& format, const FloatMatrix& weights,
                        std::span<const float> importance, bool scale_search) {
  assert(!format.zero_points && (importance.empty() || importance.size() == weights.columns));
  ValueTable table = lut::normal_float(format);
  ValueTable best = table;
  double best_error = std::numeric_limits<double>::infinity();
  for (int round = 0; round <= kRounds; ++round) {
    const Histogram histogram = measured(products, format, weights, importance, scale_search, table);
    const bool worthwhile = histogram.error < best_error * (1 - kSmallestGain);
    if (histogram.error < best_error) {
      best_error = histogram.error;
      best = table;
    }
    if (!worthwhile || round == kRounds) break;
    std::vector<double> centres(table.values.begin(),
                                table.values.begin() + static_cast<std::ptrdiff_t>(table.size));
    BestClusters(histogram).find(centres);
    std::sort(centres.begin(), centres.end());
    improve(histogram, centres);
    const double largest = std::max(std::abs(centres.front()), std::abs(centres.back()));
    if (!(largest > 0)) break;  // all weights are 0
    std::array<float, 16> values{};
    for (size_t i = 0; i < centres.size(); ++i) values[i] = stored_entry(format, centres[i] / largest);
    table = make_value_table(std::span(values).first(centres.size()));
  }
  return best;
}

}  // namespace tessera::quantize
