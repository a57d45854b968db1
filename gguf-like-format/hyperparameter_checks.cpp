#include "gguf-like-format/hyperparameter_checks.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera {

namespace {

// Shares the wording of JsonFields.
class RangeCheck {
 public:
  RangeCheck(const std::string& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  void operator()(std::string_view field, const std::string& name) const {
    const bool good = !name.empty() && name.size() <= 32 && std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
    if (!good)
      refuse(field, "1 to 32 lower-case letters, digits, \"_\" and \"-\"",
             fmt::format("\"{}\"", printable(name)));
  }
  void operator()(std::string_view field, uint64_t value, const FieldRule<uint64_t>& rule) const {
    if (value < rule.least || value > rule.most)
      refuse(field, fmt::format("an integer from {} to {}", rule.least, rule.most), fmt::format("{}", value));
  }
  void operator()(std::string_view field, double value, const FieldRule<double>& rule) const {
    if (!(value >= rule.least && value <= rule.most))
      refuse(field, fmt::format("a number from {} to {}", rule.least, rule.most), fmt::format("{}", value));
  }
  void operator()(std::string_view, bool) const {}
  void operator()(std::string_view, bool, OffByDefault) const {}
  void rope_scaling(std::string_view field, const RopeScaling& scaling) const {
    const RangeCheck nested(file_, fmt::format("{}.{}", prefix_, field));
    visit_rope_scaling(scaling, nested);
    if (scaling.kind == RopeScalingKind::yarn && scaling.beta_fast <= scaling.beta_slow)
      nested.refuse("beta_fast", fmt::format("more than beta_slow ({})", scaling.beta_slow),
                    fmt::format("{}", scaling.beta_fast));
    if (scaling.kind == RopeScalingKind::llama3 && scaling.high_freq_factor <= scaling.low_freq_factor)
      nested.refuse("high_freq_factor",
                    fmt::format("more than low_freq_factor ({})", scaling.low_freq_factor),
                    fmt::format("{}", scaling.high_freq_factor));
  }
  [[noreturn]] void refuse(std::string_view field, std::string_view expected, std::string_view found) const {
    throw FileError(fmt::format("{}: {}.{}: expected {}, found {}", file_, prefix_, field, expected, found));
  }

 private:
  const std::string& file_;
  std::string prefix_;
};

class TextList {
 public:
  explicit TextList(std::string prefix, std::vector<std::pair<std::string, std::string>>& texts)
      : prefix_(std::move(prefix)), texts_(texts) {}

  void operator()(std::string_view field, const std::string& value) { add(field, value); }
  void operator()(std::string_view field, bool value) { add(field, value ? "true" : "false"); }
  void operator()(std::string_view field, bool value, OffByDefault) { (*this)(field, value); }
  void operator()(std::string_view field, uint64_t value, const FieldRule<uint64_t>&) {
    add(field, fmt::format("{}", value));
  }
  // The shortest decimal text that reads back as the same number.
  void operator()(std::string_view field, double value, const FieldRule<double>&) {
    add(field, fmt::format("{}", value));
  }
  void rope_scaling(std::string_view field, const RopeScaling& scaling) {
    TextList nested(fmt::format("{}{}.", prefix_, field), texts_);
    nested.add("kind", std::string(scaling_name(scaling.kind)));
    visit_rope_scaling(scaling, nested);
  }

 private:
  void add(std::string_view field, std::string value) {
    texts_.emplace_back(prefix_ + std::string(field), std::move(value));
  }

  std::string prefix_;
  std::vector<std::pair<std::string, std::string>>& texts_;
};

}  // namespace

std::string_view scaling_name(RopeScalingKind kind) {
  for (const ScalingName& entry : kScalingNames)
    if (entry.kind == kind) return entry.name;
  return "unknown";
}

void check_hyperparameters(const Hyperparameters& h, const std::string& file, const std::string& prefix) {
  const RangeCheck check(file, prefix);
  visit_hyperparameters(h, check);
  if (h.rotated_table && !h.tied_head)
    check.refuse("rotated_table", "false where the head is a table of its own", "true");
  if (h.query_heads % h.kv_heads != 0)
    check.refuse("kv_heads", fmt::format("a divisor of query_heads ({})", h.query_heads),
                 fmt::format("{}", h.kv_heads));
  if (h.log_scale_from == 1) check.refuse("log_scale_from", "0 or at least 2", "1");
  if (h.head_dim % header_limits::kHeadDimStep != 0)
    check.refuse("head_dim", fmt::format("a multiple of {}", header_limits::kHeadDimStep),
                 fmt::format("{}", h.head_dim));
  if (h.model_head_dim() % 2 != 0)
    check.refuse("head_padding", "an even number, as positions rotate pairs",
                 fmt::format("{}", h.head_padding));
  if (h.sliding_rope_theta != 0 && h.sliding_rope_theta < header_limits::kLeastRopeTheta)
    check.refuse("sliding_rope_theta", fmt::format("0 or at least {}", header_limits::kLeastRopeTheta),
                 fmt::format("{}", h.sliding_rope_theta));
}

std::vector<std::pair<std::string, std::string>> hyperparameter_texts(const Hyperparameters& h) {
  std::vector<std::pair<std::string, std::string>> texts;
  TextList list("", texts);
  visit_hyperparameters(h, list);
  return texts;
}

}  // namespace tessera
