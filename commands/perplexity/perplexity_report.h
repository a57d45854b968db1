// The results of perplexity measurements, and the forms they are printed and drawn in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/measure/logit_comparison.h"

namespace tessera {

// One file at one KV precision.
struct QualityRow {
  std::string name;  // short: the file's name, or its path where two have the same
  std::string file;
  std::string scheme;
  unsigned kv_bits = 16;
  size_t kv_first_layers = 0;  // leading layers that keep 16 bits
  uint64_t file_bytes = 0;
  uint64_t weight_bytes = 0;   // of the weights the model reads
  double bits_per_weight = 0;  // of the same
  ModelQuality quality;
};

struct QualityReport {
  std::string text;         // where the text came from
  std::string description;  // of the windows
  size_t windows = 0;
  size_t text_tokens = 0;
  size_t scored_tokens = 0;
  std::string backend;
  std::optional<QualityRow> reference;
  std::vector<QualityRow> models;
};

// A part of a model, quantized alone while the rest is the reference's.
struct PartCost {
  std::string name;    // "layers.3", "layers.3.gate_up", "embedding and head"
  std::string scheme;  // "w4a8-g128"; several joined by " + "
  uint64_t weight_bytes = 0;
  double bits_per_weight = 0;
  ModelQuality quality;
  double share = 0;  // of the sum of mean KL over all parts; 0 when that sum is
};

struct LayerReport {
  QualityReport whole;          // the reference and the whole quantized file
  std::vector<PartCost> parts;  // the costliest first
};

// form: "text", "json", "csv" or "md". A report of one model prints as lines of text, others as a table.
std::string quality_text(const QualityReport& report, const std::string& form);
std::string layer_text(const LayerReport& report, const std::string& form);

// Perplexity and mean KL divergence over file size as a whole SVG document. The report has a reference.
std::string quality_svg(const QualityReport& report);

}  // namespace tessera
