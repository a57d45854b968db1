// The cases that every backend must pass: each op at odd sizes, with the bounds within which backends agree.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/op_rig.h"

namespace tessera::rig {

inline constexpr std::array kElementTypes = {ElementType::f32, ElementType::q8, ElementType::bf16};

inline constexpr Bound kExact = {0, 0};
inline constexpr Bound kFloat = {1e-5, 2e-6};        // float32 sums in any order
inline constexpr Bound kHalfProduct = {1e-3, 1e-4};  // activations may be split into bfloat16 parts
// Values computed in float32 may fall on the other side of a rounding tie: one code step in few places.
inline constexpr Bound kQuantized = {1.01 / 127, 5e-4};
inline constexpr Bound kRounded = {1.01 / 128, 3e-3};  // the same for bfloat16, in an eighth of all places

inline Bound rounding_bound(ElementType type) {
  return type == ElementType::f32 ? kFloat : type == ElementType::q8 ? kQuantized : kRounded;
}

inline std::string label(std::string op, Scheme scheme, size_t a, size_t b) {
  return std::move(op) + " " + std::string(scheme_name(scheme)) + " " + std::to_string(a) + "x" +
         std::to_string(b);
}

inline KvGeometry small_kv() { return {1, 1, 8, 16, 0}; }

// 1 as in most models, or another one.
inline float any_multiplier(Random& random) { return random() % 2 == 0 ? 1.0f : 0.37f; }

inline OpCase embed_case(Random& random, Scheme scheme, size_t rows, size_t columns) {
  OpCase test;
  test.name = label("embed", scheme, rows, columns);
  test.kv = small_kv();
  // Code - zero need not be a float, nor scale * code + minimum.
  test.bound = scheme_facts(scheme).offset != GroupOffset::none ? kFloat : kExact;
  CaseBuilder build(test);
  build.read_out(build.embed(random_matrix(random, "table", scheme, rows, columns), any_multiplier(random)));
  random_runs(random, test, {});
  return test;
}

// Positions up to those of the last row.
inline OpCase add_position_case(Random& random, Scheme scheme, size_t columns) {
  OpCase test;
  test.name = label("add position", scheme, 40, columns);
  test.kv = small_kv();
  test.bound = scheme_facts(scheme).offset != GroupOffset::none ? kFloat : kExact;
  CaseBuilder build(test);
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  const TensorId y = build.tensor(RowExtent::tokens, columns, ElementType::f32);
  build.op(AddPosition{build.weight(random_matrix(random, "positions", scheme, 40, columns))}, {x}, {y});
  build.read_out(y);
  random_runs(random, test, {2, 2, 12, 8, false});
  return test;
}

struct NormShape {
  size_t columns;
  bool added;        // two inputs
  bool select_rows;  // otherwise a norm over all tokens
  ElementType type;  // of the result
  bool read_sum;     // look at the sum instead of y
  bool bias = false;
};

inline OpCase norm_case(Random& random, const NormShape& shape) {
  OpCase test;
  test.name = std::string("norm ") + std::to_string(shape.columns) + (shape.added ? " added" : "") +
              (shape.select_rows ? " selected " : " ") + element_name(shape.type) +
              (shape.read_sum ? " sum" : "") + (shape.bias ? " bias" : "");
  test.kv = small_kv();
  test.bound = shape.read_sum ? kExact : rounding_bound(shape.type);
  CaseBuilder build(test);
  std::vector<TensorId> inputs = {build.embed(input_table(random, "x", 37, shape.columns))};
  if (shape.added) inputs.push_back(build.embed(input_table(random, "added", 37, shape.columns)));
  const RowExtent rows = shape.select_rows ? RowExtent::outputs : RowExtent::tokens;
  std::vector<TensorId> outputs = {build.tensor(rows, shape.columns, shape.type)};
  if (shape.added) outputs.push_back(build.tensor(rows, shape.columns, ElementType::f32));
  const WeightId gain = build.weight(random_vector(random, "gain", shape.columns));
  std::optional<WeightId> bias;
  if (shape.bias) bias = build.weight(random_vector(random, "bias", shape.columns));
  build.op(Norm{gain, 1e-5f, shape.select_rows, any_multiplier(random), bias}, inputs, outputs);
  build.read_out(shape.read_sum ? outputs[1] : outputs[0]);
  random_runs(random, test, {});
  return test;
}

struct LinearShape {
  std::vector<size_t> rows;  // of each part
  size_t columns;
  size_t most_tokens;
  bool bias;
  bool selected;  // over the selected rows only, as the head does
};

inline OpCase linear_case(Random& random, Scheme scheme, const LinearShape& shape) {
  OpCase test;
  test.name = label("linear", scheme, shape.rows.front(), shape.columns) + " parts " +
              std::to_string(shape.rows.size()) + (shape.bias ? " bias" : "") +
              (shape.selected ? " selected" : "") + " tokens " + std::to_string(shape.most_tokens);
  test.kv = small_kv();
  test.bound = scheme == Scheme::bf16 ? kHalfProduct : has_row_scales(scheme) ? kExact : kFloat;
  CaseBuilder build(test);
  TensorId x = build.embed(input_table(random, "x", 37, shape.columns));
  if (shape.selected) x = build.select_rows(x);
  if (linear_input(scheme) != ElementType::f32) x = build.quantize(x, linear_input(scheme));
  std::vector<LinearPart> parts;
  for (const size_t rows : shape.rows) {
    LinearPart part{build.weight(random_matrix(random, "w", scheme, rows, shape.columns)), std::nullopt};
    if (shape.bias && parts.size() != 1) part.bias = build.weight(random_vector(random, "bias", rows));
    parts.push_back(part);
  }
  build.read_out(build.linear(x, std::move(parts)));
  random_runs(random, test, {2, 2, shape.most_tokens, 0, shape.most_tokens == 1});
  return test;
}

struct HeadNormShape {
  size_t query_heads;
  size_t kv_heads;
  size_t head_dim;
  size_t extra;   // columns after the heads
  bool in_place;  // otherwise the input is read again afterwards
};

inline OpCase head_norm_case(Random& random, const HeadNormShape& shape) {
  OpCase test;
  test.name = "head norm " + std::to_string(shape.query_heads) + "+" + std::to_string(shape.kv_heads) + "x" +
              std::to_string(shape.head_dim) + (shape.in_place ? " in place" : " copied");
  test.kv = small_kv();
  test.bound = kFloat;
  CaseBuilder build(test);
  const size_t columns = (shape.query_heads + shape.kv_heads) * shape.head_dim + shape.extra;
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  const TensorId y = build.tensor(RowExtent::tokens, columns, ElementType::f32);
  const WeightId query_gain = build.weight(random_vector(random, "query gain", shape.head_dim));
  const WeightId key_gain = build.weight(random_vector(random, "key gain", shape.head_dim));
  build.op(HeadNorm{query_gain, key_gain, shape.query_heads, shape.kv_heads, shape.head_dim, 1e-6f}, {x},
           {y});
  if (shape.in_place) {
    build.read_out(y);
  } else {
    const TensorId normed = build.tensor(RowExtent::tokens, columns, ElementType::f32);
    const TensorId sum = build.tensor(RowExtent::tokens, columns, ElementType::f32);
    build.op(Norm{build.weight(random_vector(random, "gain", columns)), 1e-5f, false}, {x, y}, {normed, sum});
    build.read_out(sum);
  }
  random_runs(random, test, {});
  return test;
}

struct RopeShape {
  size_t heads;
  size_t head_dim;
  size_t rotary;
  size_t extra;   // columns after the rotated heads
  bool in_place;  // otherwise the input is read again afterwards
};

inline OpCase rope_case(Random& random, const RopeShape& shape) {
  OpCase test;
  test.name = "rope " + std::to_string(shape.heads) + "x" + std::to_string(shape.head_dim) + " rotary " +
              std::to_string(shape.rotary) + (shape.in_place ? " in place" : " copied");
  test.kv = small_kv();
  test.bound = kFloat;
  CaseBuilder build(test);
  const size_t columns = shape.heads * shape.head_dim + shape.extra;
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  Rope kind{shape.heads, shape.head_dim, {}};
  for (size_t i = 0; i < shape.rotary / 2; ++i)
    kind.inverse_frequency.push_back(
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(shape.rotary)));
  const TensorId y = build.tensor(RowExtent::tokens, columns, ElementType::f32);
  build.op(kind, {x}, {y});
  if (shape.in_place) {
    build.read_out(y);
  } else {
    const TensorId normed = build.tensor(RowExtent::tokens, columns, ElementType::f32);
    const TensorId sum = build.tensor(RowExtent::tokens, columns, ElementType::f32);
    build.op(Norm{build.weight(random_vector(random, "gain", columns)), 1e-5f, false}, {x, y}, {normed, sum});
    build.read_out(sum);
  }
  random_runs(random, test, {3, 2, 7, 5000, false});
  return test;
}

struct AttentionShape {
  size_t query_heads;
  size_t kv_heads;
  size_t head_dim;
  unsigned bits;
  size_t layers;
  size_t first_layers_16bit;
  size_t runs;
  size_t most_tokens;
  size_t window = 0;
  float soft_cap = 0;
  float alibi = 0;
  size_t log_scale_from = 0;
};

// With two layers the second attends over what the first put into a wider projection, so that both caches
// count.
inline OpCase attention_case(Random& random, const AttentionShape& shape) {
  OpCase test;
  test.name = "attention " + std::to_string(shape.query_heads) + "/" + std::to_string(shape.kv_heads) +
              " heads of " + std::to_string(shape.head_dim) + " kv" + std::to_string(shape.bits) +
              " layers " + std::to_string(shape.layers) + " first16 " +
              std::to_string(shape.first_layers_16bit) + " window " + std::to_string(shape.window) + " cap " +
              std::to_string(shape.soft_cap) + " alibi " + std::to_string(shape.alibi) + " log " +
              std::to_string(shape.log_scale_from);
  test.kv = {shape.layers, shape.kv_heads, shape.head_dim, shape.bits, shape.first_layers_16bit};
  // Scores of about 100 carry float errors of 1e-5 into the exponent. Values are of the size of 1; where all
  // that weigh are zero, weights of 2^-25 are nothing.
  test.bound = {2e-3, 5e-5, 1e-2};
  // 8 bits: queries in steps of 2^-15 of their largest element, times scores of hundreds. 4 bits: where a
  // rounding to 8 bits falls to the other side. Weights below 2^-100 are nothing, even where only they are
  // left.
  if (shape.bits == 8) test.bound = {5e-2, 5e-3, 1e-20};
  if (shape.bits == 4) test.bound = {5e-2, 5e-3, 1e-20};
  CaseBuilder build(test);
  const size_t columns = (shape.query_heads + 2 * shape.kv_heads) * shape.head_dim;
  const size_t out_columns = shape.query_heads * shape.head_dim;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  // With 4 bits queries are rounded to 8, and all of a row of ties may fall to either side: only scores that
  // leave a single key come to the same.
  const float largest_tie = shape.bits == 4 ? 127.0f : 8.0f;
  TensorId sum = 0;
  for (size_t layer = 0; layer < shape.layers; ++layer) {
    // Mild outliers: scores in the thousands would turn float32 rounding of a dot product into visible
    // weights.
    const TensorId x = build.embed(input_table(random, "x", 41, columns, 4.0f, largest_tie));
    const TensorId y = build.tensor(RowExtent::tokens, out_columns, ElementType::f32);
    build.op(Attention{layer, shape.query_heads, shape.kv_heads, shape.head_dim, scale, shape.window,
                       shape.soft_cap, shape.alibi, shape.log_scale_from},
             {x}, {y});
    if (layer == 0) {
      sum = y;
      continue;
    }
    const TensorId normed = build.tensor(RowExtent::tokens, out_columns, ElementType::f32);
    const TensorId next = build.tensor(RowExtent::tokens, out_columns, ElementType::f32);
    build.op(Norm{build.weight(random_vector(random, "gain", out_columns)), 1e-5f, false}, {sum, y},
             {normed, next});
    sum = next;
  }
  build.read_out(sum);
  random_runs(random, test, {3, shape.runs, shape.most_tokens, 0, true});
  if (shape.window != 0 && random() % 2 == 0) {
    // Some layers have pages of their own, or all.
    for (size_t layer = 0; layer < shape.layers; ++layer)
      test.kv.slides.push_back(shape.layers == 1 || random() % 2 == 0);
    test.kv.window_pages = test.pages + 1 + random() % 3;
  }
  return test;
}

inline OpCase gate_case(Random& random, size_t columns, ElementType type,
                        GateFunction function = GateFunction::silu, bool has_up = true) {
  OpCase test;
  test.name = std::string("gate ") + std::array{"silu ", "gelu ", "relu "}.at(static_cast<size_t>(function)) +
              std::to_string(columns) + (has_up ? " " : " without up ") + element_name(type);
  test.kv = small_kv();
  test.bound = rounding_bound(type);
  // Tiny values pass as they are, and not every product keeps those below 2^-126.
  if (function == GateFunction::relu) test.bound.smallest = 1e-30;
  CaseBuilder build(test);
  const TensorId x = build.embed(input_table(random, "x", 37, (has_up ? 2 : 1) * columns));
  const TensorId y = build.tensor(RowExtent::tokens, columns, type);
  build.op(Gate{function, has_up}, {x}, {y});
  build.read_out(y);
  random_runs(random, test, {});
  return test;
}

inline OpCase soft_cap_case(Random& random, size_t columns, float cap) {
  OpCase test;
  test.name = "soft cap " + std::to_string(columns) + " " + std::to_string(cap);
  test.kv = small_kv();
  // The difference of the cap and a number near it: what rounding those and e^2x costs is a share of the cap,
  // below 4e-7 of it.
  test.bound = {1e-5, 1e-5, 0.04 * static_cast<double>(cap)};
  CaseBuilder build(test);
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  const TensorId y = build.tensor(RowExtent::tokens, columns, ElementType::f32);
  build.op(SoftCap{cap}, {x}, {y});
  build.read_out(y);
  random_runs(random, test, {});
  return test;
}

inline OpCase rotated_gain_case(Random& random, size_t columns) {
  OpCase test;
  test.name = "rotated gain " + std::to_string(columns);
  test.kv = small_kv();
  test.bound = {1e-4, 1e-5};
  CaseBuilder build(test);
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  const TensorId y = build.tensor(RowExtent::tokens, columns, ElementType::f32);
  build.op(RotatedGain{build.weight(random_vector(random, "gain", columns))}, {x}, {y});
  build.read_out(y);
  random_runs(random, test, {});
  return test;
}

inline OpCase quantize_case(Random& random, size_t columns, ElementType type) {
  OpCase test;
  test.name = "quantize " + std::to_string(columns) + " " + element_name(type);
  test.kv = small_kv();
  test.bound = kExact;
  CaseBuilder build(test);
  build.read_out(build.quantize(build.embed(input_table(random, "x", 37, columns)), type));
  random_runs(random, test, {});
  return test;
}

inline OpCase gather_case(Random& random, size_t columns, ElementType type) {
  OpCase test;
  test.name = "gather " + std::to_string(columns) + " " + element_name(type);
  test.kv = small_kv();
  test.bound = kExact;
  CaseBuilder build(test);
  const TensorId x = build.embed(input_table(random, "x", 37, columns));
  std::vector<uint32_t> order(columns);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  const TensorId y = build.tensor(RowExtent::tokens, columns, type);
  build.op(Gather{build.weight(packed_order("order", order))}, {x}, {y});
  build.read_out(y);
  random_runs(random, test, {});
  return test;
}

// Two whole decoder layers and a head in one scheme: fusions, buffer reuse and the order of ops together.
inline OpCase layers_case(Random& random, Scheme scheme, unsigned kv_bits) {
  OpCase test;
  test.name = "layers " + std::string(scheme_name(scheme)) + " kv" + std::to_string(kv_bits);
  constexpr size_t kHidden = 72;
  constexpr size_t kFfn = 172;
  constexpr size_t kQueryHeads = 4;
  constexpr size_t kKvHeads = 2;
  constexpr size_t kHeadDim = 24;
  constexpr size_t kLayers = 2;
  const ElementType activations = linear_input(scheme);
  test.kv = {kLayers, kKvHeads, kHeadDim, kv_bits, 0};
  // One code on the other side of a rounding edge moves everything behind it, so two layers can only be
  // compared loosely: a wrong op is off by about 1.
  test.bound = {5e-1, 5e-2};
  if (activations == ElementType::f32 && scheme != Scheme::bf16 && kv_bits == 16) test.bound = {2e-3, 2e-4};
  CaseBuilder build(test);
  const auto part = [&](size_t rows, size_t columns) {
    return LinearPart{build.weight(random_matrix(random, "w", scheme, rows, columns)), std::nullopt};
  };
  const float multiplier = any_multiplier(random);
  const auto norm = [&](TensorId& residual, std::optional<TensorId> added, bool select) {
    const RowExtent rows = select ? RowExtent::outputs : RowExtent::tokens;
    const WeightId gain = build.weight(packed_vector("gain", std::vector<float>(kHidden, 0.12f)));
    const TensorId y = build.tensor(rows, kHidden, activations);
    std::vector<TensorId> inputs = {residual};
    std::vector<TensorId> outputs = {y};
    if (added) {
      inputs.push_back(*added);
      outputs.push_back(build.tensor(rows, kHidden, ElementType::f32));
      residual = outputs[1];
    }
    build.op(Norm{gain, 1e-5f, select, multiplier}, inputs, outputs);
    return y;
  };
  TensorId residual =
      build.embed(random_matrix(random, "table", scheme, 53, kHidden), any_multiplier(random));
  std::optional<TensorId> added;
  for (size_t layer = 0; layer < kLayers; ++layer) {
    TensorId x = norm(residual, added, false);
    x = build.linear(x, {part(kQueryHeads * kHeadDim, kHidden), part(kKvHeads * kHeadDim, kHidden),
                         part(kKvHeads * kHeadDim, kHidden)});
    const TensorId rotated = build.tensor(RowExtent::tokens, build.info(x).columns, ElementType::f32);
    build.op(Rope{kQueryHeads + kKvHeads, kHeadDim, {1.0, 0.5, 0.1, 0.05, 0.01, 0.002}}, {x}, {rotated});
    x = build.tensor(RowExtent::tokens, kQueryHeads * kHeadDim, ElementType::f32);
    build.op(Attention{layer, kQueryHeads, kKvHeads, kHeadDim, 0.2f}, {rotated}, {x});
    if (activations != ElementType::f32) x = build.quantize(x, activations);
    added = build.linear(x, {part(kHidden, kQueryHeads * kHeadDim)});
    x = norm(residual, added, false);
    x = build.linear(x, {part(kFfn, kHidden), part(kFfn, kHidden)});
    const TensorId gated = build.tensor(RowExtent::tokens, kFfn, activations);
    build.op(Gate{}, {x}, {gated});
    added = build.linear(gated, {part(kHidden, kFfn)});
  }
  build.read_out(build.linear(norm(residual, added, true), {part(53, kHidden)}));
  random_runs(random, test, {3, 4, 30, 0, false});
  return test;
}

// All cases, made fresh from the seed.
inline std::vector<OpCase> op_cases(uint64_t seed) {
  Random random(seed);
  std::vector<OpCase> cases;
  for (const Scheme scheme : matrix_schemes()) {
    for (const auto& [rows, columns] : {std::pair<size_t, size_t>{37, 64}, {5, 172}, {64, 288}, {33, 9}})
      cases.push_back(embed_case(random, scheme, rows, columns));
    cases.push_back(add_position_case(random, scheme, 72));
    const std::vector<LinearShape> shapes = {
        {{16}, 64, 1, false, false},    {{1}, 8, 3, true, false},
        {{17}, 172, 5, false, true},    {{48, 16, 16}, 288, 9, true, false},
        {{40, 13}, 576, 2, true, true}, {{33, 8, 7}, 129, 33, true, false},
        {{100}, 896, 8, false, false},  {{31}, 1000, 17, true, true},
        {{64}, 1024, 1, true, true},    {{96, 96}, 255, 70, false, false},
        {{7}, 1, 2, false, false},
    };
    // There are many schemes with scales per group that share their code: each gets every third shape,
    // another third each time, and one kind of cache.
    const bool table = scheme_facts(scheme).group_scales();
    const size_t first = table ? pick(random, 0, 2) : 0;
    for (size_t i = first; i < shapes.size(); i += table ? 3 : 1)
      cases.push_back(linear_case(random, scheme, shapes[i]));
    for (const unsigned bits : {16u, 8u, 4u}) {
      if (!table || bits == 16) cases.push_back(layers_case(random, scheme, bits));
    }
  }
  for (const size_t columns : {size_t{8}, size_t{64}, size_t{172}, size_t{576}, size_t{1000}, size_t{1024}}) {
    for (const bool added : {false, true}) {
      for (const bool select_rows : {false, true}) {
        for (const ElementType type : kElementTypes)
          for (const bool bias : {false, true})
            cases.push_back(norm_case(random, {columns, added, select_rows, type, false, bias}));
        if (added) cases.push_back(norm_case(random, {columns, true, select_rows, ElementType::f32, true}));
      }
    }
  }
  for (const bool in_place : {true, false}) {
    cases.push_back(head_norm_case(random, {3, 1, 8, 8, in_place}));
    cases.push_back(head_norm_case(random, {4, 2, 24, 48, in_place}));
    cases.push_back(head_norm_case(random, {9, 3, 128, 0, in_place}));
    cases.push_back(head_norm_case(random, {2, 2, 80, 17, in_place}));
    cases.push_back(rope_case(random, {3, 8, 8, 0, in_place}));
    cases.push_back(rope_case(random, {5, 64, 64, 128, in_place}));
    cases.push_back(rope_case(random, {2, 80, 32, 7, in_place}));
    cases.push_back(rope_case(random, {4, 24, 24, 24, in_place}));
    cases.push_back(rope_case(random, {1, 16, 0, 16, in_place}));
  }
  for (const unsigned bits : {16u, 8u, 4u}) {
    cases.push_back(attention_case(random, {1, 1, 8, bits, 1, 0, 3, 5}));
    cases.push_back(attention_case(random, {4, 2, 16, bits, 1, 0, 12, 40}));
    cases.push_back(attention_case(random, {9, 3, 24, bits, 1, 0, 4, 70}));
    cases.push_back(attention_case(random, {8, 2, 64, bits, 2, 1, 5, 60}));
    cases.push_back(attention_case(random, {6, 1, 80, bits, 1, 0, 4, 33}));
    cases.push_back(attention_case(random, {2, 2, 128, bits, 1, 0, 5, 130}));
    cases.push_back(attention_case(random, {4, 1, 16, bits, 1, 0, 6, 50, 1, 0}));
    cases.push_back(attention_case(random, {4, 2, 16, bits, 1, 0, 6, 90, 64, 0}));
    cases.push_back(attention_case(random, {3, 3, 32, bits, 2, 1, 6, 120, 77, 0}));
    cases.push_back(attention_case(random, {2, 1, 8, bits, 1, 0, 5, 300, 150, 0}));
    cases.push_back(attention_case(random, {4, 2, 24, bits, 1, 0, 5, 60, 0, 20.0f}));
    cases.push_back(attention_case(random, {2, 1, 256, bits, 1, 0, 3, 50, 40, 50.0f}));
    cases.push_back(attention_case(random, {5, 5, 24, bits, 1, 0, 5, 90, 0, 0, 8.0f}));
    cases.push_back(attention_case(random, {6, 2, 16, bits, 2, 1, 5, 60, 33, 0, 4.0f, 20}));
  }
  for (const size_t columns : {size_t{1}, size_t{8}, size_t{172}, size_t{255}, size_t{896}, size_t{1100}}) {
    for (const ElementType type : kElementTypes) {
      cases.push_back(gate_case(random, columns, type));
      cases.push_back(gate_case(random, columns, type, GateFunction::gelu_tanh));
      cases.push_back(gate_case(random, columns, type, GateFunction::gelu_tanh, false));
      cases.push_back(gate_case(random, columns, type, GateFunction::relu, columns % 2 == 0));
      cases.push_back(gather_case(random, columns, type));
      if (type != ElementType::f32) cases.push_back(quantize_case(random, columns, type));
    }
  }
  for (const size_t columns : {size_t{1}, size_t{172}, size_t{1100}, size_t{2049}}) {
    cases.push_back(soft_cap_case(random, columns, 30.0f));
    cases.push_back(soft_cap_case(random, columns, 0.7f));
  }
  // Of a power of two, of Paley's matrices and of Hartley's.
  for (const size_t columns : {size_t{1}, size_t{64}, size_t{72}, size_t{576}, size_t{172}, size_t{1020}})
    cases.push_back(rotated_gain_case(random, columns));
  return cases;
}

}  // namespace tessera::rig
