#include "engine/quantize/weight_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_set>

namespace tessera {

namespace {

bool is_float(CheckpointType type) {
  return type == CheckpointType::f32 || type == CheckpointType::f16 || type == CheckpointType::bf16;
}

std::string_view type_name(CheckpointType type) {
  switch (type) {
    case CheckpointType::f32:
      return "F32";
    case CheckpointType::f16:
      return "F16";
    case CheckpointType::bf16:
      return "BF16";
    case CheckpointType::i32:
      return "I32";
    case CheckpointType::u8:
      return "U8";
  }
  return "unknown";
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Scheme same_precision(CheckpointType type) {
  if (type == CheckpointType::f16) return Scheme::f16;
  return type == CheckpointType::bf16 ? Scheme::bf16 : Scheme::f32;
}

bool makes_logits_or_embeds(const ExpectedTensor& tensor) {
  return tensor.kind == "head" || tensor.kind == "embedding";
}

Scheme choose_scheme(const ExpectedTensor& tensor, CheckpointType type, Scheme scheme, bool keep_head) {
  if (tensor.shape.size() == 1) return Scheme::f32;
  if (!makes_logits_or_embeds(tensor)) return scheme;
  if (keep_head) return same_precision(type);
  return has_row_scales(scheme) || table_format(scheme) ? Scheme::w8a8 : scheme;
}

// Tensors some exporters add that carry nothing: rotation tables, which the hyperparameters define, and a
// copy of the embedding as the head of a tied model.
bool is_harmless(std::string_view name, bool tied_head) {
  constexpr std::array<std::string_view, 3> kTables{".rotary_emb.inv_freq", ".rotary_emb.cos_cached",
                                                    ".rotary_emb.sin_cached"};
  if (tied_head && name == "lm_head.weight") return true;
  return std::any_of(kTables.begin(), kTables.end(), [&](std::string_view end) {
    return name.size() > end.size() && name.substr(name.size() - end.size()) == end;
  });
}

void refuse_unknown(const std::string& folder, const Checkpoint& checkpoint,
                    const std::vector<ExpectedTensor>& expected, bool tied_head) {
  std::unordered_set<std::string_view> known;
  for (const ExpectedTensor& tensor : expected) known.insert(tensor.source);
  const CheckpointTensor* first = nullptr;
  size_t count = 0;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (known.count(tensor.name) != 0 || is_harmless(tensor.name, tied_head)) continue;
    if (count++ == 0) first = &tensor;
  }
  if (count == 0) return;
  const std::string others = count > 1 ? fmt::format(" and {} more", count - 1) : std::string();
  throw FileError(
      fmt::format("{}: tensor \"{}\"{}: expected only tensors this model family uses, "
                  "found one it has no place for",
                  folder, first->name, others));
}

}  // namespace

std::vector<PlannedWeight> plan_weights(const std::string& folder, const Checkpoint& checkpoint,
                                        const Hyperparameters& hyperparameters, Scheme scheme,
                                        bool keep_head) {
  const std::vector<ExpectedTensor> expected = expected_tensors(hyperparameters);
  std::vector<PlannedWeight> plan;
  plan.reserve(expected.size());
  for (const ExpectedTensor& tensor : expected) {
    const CheckpointTensor* source = checkpoint.find(tensor.source);
    if (source == nullptr)
      throw FileError(fmt::format("{}: tensor \"{}\": expected shape {}, found no such tensor", folder,
                                  tensor.source, shape_text(tensor.shape)));
    if (source->shape != tensor.shape)
      throw FileError(fmt::format("{}: tensor \"{}\": expected shape {}, found {}", folder, tensor.source,
                                  shape_text(tensor.shape), shape_text(source->shape)));
    if (!is_float(source->type))
      throw FileError(fmt::format("{}: tensor \"{}\": expected type F32, F16 or BF16, found {}", folder,
                                  tensor.source, type_name(source->type)));
    const Scheme stored = choose_scheme(tensor, source->type, scheme, keep_head);
    if (tensor.shape.size() == 2 && tensor.shape[1] > most_summed_columns(stored))
      throw FileError(fmt::format("{}: tensor \"{}\": expected at most {} columns in scheme {}, found {}",
                                  folder, tensor.source, most_summed_columns(stored), scheme_name(stored),
                                  tensor.shape[1]));
    plan.push_back({tensor, source, stored});
  }
  refuse_unknown(folder, checkpoint, expected, hyperparameters.tied_head);
  return plan;
}

Scheme head_scheme(const std::vector<PlannedWeight>& plan) {
  const auto find = [&](std::string_view kind) {
    return std::find_if(plan.begin(), plan.end(),
                        [&](const PlannedWeight& weight) { return weight.expected.kind == kind; });
  };
  const auto head = find("head");
  const auto made_by = head != plan.end() ? head : find("embedding");
  return made_by != plan.end() ? made_by->scheme : Scheme::f32;
}

}  // namespace tessera
