// Figures of repeated measurements: mean, standard error, median.
#pragma once

#include <cstddef>
#include <vector>

namespace tessera {

// Mean and standard error of values that are taken as independent.
class SampleMean {
 public:
  void add(double value);
  size_t count() const { return count_; }
  double mean() const { return mean_; }
  double standard_error() const;  // of the mean; 0 below two values

 private:
  size_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of the squared distances from the mean
};

// The value in the middle, or the mean of the two in the middle; 0 of no values.
double median(std::vector<double> values);

}  // namespace tessera
