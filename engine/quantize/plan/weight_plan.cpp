#include "engine/quantize/plan/weight_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace tessera {

namespace {

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Scheme choose_scheme(const ExpectedTensor& tensor, Scheme precision, Scheme scheme, bool keep_head) {
  if (tensor.shape.size() == 1) return Scheme::f32;
  if (!makes_logits_or_embeds(tensor.role)) return scheme;
  if (keep_head) return precision;
  return scheme_facts(scheme).stores_codes() ? Scheme::w8a8 : scheme;
}

// The shape of the whole tensor in the checkpoint, of which the expected one may be some rows.
std::vector<uint64_t> source_shape(const ExpectedTensor& tensor) {
  std::vector<uint64_t> shape = tensor.shape;
  uint64_t& padded = tensor.source.in_columns ? shape.back() : shape.front();
  padded = tensor.source.stored_count(padded);
  if (tensor.source.all_rows != 0) shape[0] = tensor.source.all_rows;
  if (tensor.source.transposed) std::swap(shape.front(), shape.back());
  return shape;
}

// Tensors some exporters add that carry nothing: rotation tables, which the hyperparameters define, masks of
// GPT-2's attention, and a copy of the embedding as the head of a tied model.
bool is_harmless(std::string_view name, bool tied_head) {
  constexpr std::array<std::string_view, 5> kTables{".rotary_emb.inv_freq", ".rotary_emb.cos_cached",
                                                    ".rotary_emb.sin_cached", ".attn.bias",
                                                    ".attn.masked_bias"};
  if (tied_head && name == "lm_head.weight") return true;
  return std::any_of(kTables.begin(), kTables.end(), [&](std::string_view end) {
    return name.size() > end.size() && name.substr(name.size() - end.size()) == end;
  });
}

void refuse_unknown(const CheckpointSource& checkpoint, const std::vector<ExpectedTensor>& expected,
                    bool tied_head) {
  std::unordered_set<std::string_view> known;
  for (const ExpectedTensor& tensor : expected) known.insert(tensor.source.name);
  const SourceTensor* first = nullptr;
  size_t count = 0;
  for (const SourceTensor& tensor : checkpoint.tensors()) {
    if (known.count(tensor.name) != 0 || is_harmless(tensor.name, tied_head)) continue;
    if (count++ == 0) first = &tensor;
  }
  if (count == 0) return;
  const std::string others = count > 1 ? fmt::format(" and {} more", count - 1) : std::string();
  throw FileError(
      fmt::format("{}: tensor \"{}\"{}: expected only tensors this model family uses, "
                  "found one it has no place for",
                  checkpoint.path(), first->name, others));
}

}  // namespace

bool makes_logits_or_embeds(Role role) {
  const RoleKind kind = role_row(role).kind;
  return kind == RoleKind::head || kind == RoleKind::embedding;
}

void check_columns(const PlannedWeight& weight) {
  const std::vector<uint64_t>& shape = weight.expected.shape;
  const size_t most = most_summed_columns(weight.scheme);
  if (shape.size() == 2 && shape[1] > most)
    throw FileError(fmt::format("{}: tensor \"{}\": expected at most {} columns in scheme {}, found {}",
                                weight.checkpoint->path(), weight.source->name, most,
                                scheme_name(weight.scheme), shape[1]));
}

uint64_t PlannedWeight::elements() const {
  uint64_t product = 1;
  for (const uint64_t dimension : expected.shape) product *= dimension;
  return product;
}

std::vector<PlannedWeight> plan_weights(const CheckpointSource& checkpoint,
                                        const Hyperparameters& hyperparameters, Scheme scheme,
                                        bool keep_head) {
  std::vector<ExpectedTensor> expected = expected_tensors(hyperparameters);
  for (ExpectedTensor& tensor : expected) tensor.source = checkpoint.source_of(tensor);
  std::unordered_map<std::string_view, const SourceTensor*> sources;
  for (const SourceTensor& tensor : checkpoint.tensors()) sources.emplace(tensor.name, &tensor);
  std::vector<PlannedWeight> plan;
  plan.reserve(expected.size());
  for (const ExpectedTensor& tensor : expected) {
    const std::string& name = tensor.source.name;
    const std::vector<uint64_t> shape = source_shape(tensor);
    const auto found = sources.find(name);
    if (found == sources.end())
      throw FileError(fmt::format("{}: tensor \"{}\": expected shape {}, found no such tensor",
                                  checkpoint.path(), name, shape_text(shape)));
    const SourceTensor& source = *found->second;
    if (source.shape != shape)
      throw FileError(fmt::format("{}: tensor \"{}\": expected shape {}, found {}", checkpoint.path(), name,
                                  shape_text(shape), shape_text(source.shape)));
    if (!source.precision)
      throw FileError(fmt::format("{}: tensor \"{}\": expected type F32, F16 or BF16, found {}",
                                  checkpoint.path(), name, source.type));
    plan.push_back(
        {tensor, &checkpoint, &source, choose_scheme(tensor, *source.precision, scheme, keep_head), {}});
    check_columns(plan.back());
  }
  refuse_unknown(checkpoint, expected, hyperparameters.tied_head);
  return plan;
}

Scheme head_scheme(const std::vector<PlannedWeight>& plan) {
  const auto find = [&](Role role) {
    return std::find_if(plan.begin(), plan.end(),
                        [&](const PlannedWeight& weight) { return weight.expected.role == role; });
  };
  const auto head = find(Role::output_head);
  const auto made_by = head != plan.end() ? head : find(Role::token_embedding);
  return made_by != plan.end() ? made_by->scheme : Scheme::f32;
}

}  // namespace tessera
