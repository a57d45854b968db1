#include "backends/cuda/cuda_program.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <variant>

#include "backends/cuda/attention/attention.h"
#include "backends/cuda/elementwise/row_kernels.h"
#include "backends/cuda/gemm/float_linear.h"
#include "backends/cuda/gemm/integer_linear.h"
#include "backends/cuda/gemm/table_linear.h"
#include "backends/cuda/sampling/best_tokens.h"
#include "graph/rotation.h"

namespace tessera::cuda {

namespace {

constexpr size_t kMostColumns = std::numeric_limits<int32_t>::max() / 2;
constexpr size_t kMostDecodingSteps = 64;  // decoding steps that are remembered
// A launch has at most 65535 rows of blocks, each of 8 or more tokens.
constexpr size_t kMostTokens = 65535 * 8;

const UploadedWeight& uploaded(const WeightHandle& handle) {
  return static_cast<const UploadedWeight&>(*handle);
}

// What the graph and the plan may not exceed for the kernels' numbers.
std::string size_fault(const Graph& graph, const PlanLimits& limits) {
  if (limits.max_tokens > kMostTokens || limits.max_outputs > kMostTokens)
    return fmt::format("{} tokens in one run: the cuda backend takes {}", limits.max_tokens, kMostTokens);
  for (const Tensor& tensor : graph.tensors) {
    if (tensor.columns > kMostColumns)
      return fmt::format("tensor \"{}\": {} columns: the cuda backend takes {}", tensor.name, tensor.columns,
                         kMostColumns);
  }
  return {};
}

AttentionShape shape_of(const Attention& kind, const DeviceKv& kv, const PlanLimits& limits) {
  const auto query_heads = static_cast<uint32_t>(kind.query_heads);
  const auto head_dim = static_cast<uint32_t>(kind.head_dim);
  return {query_heads, static_cast<uint32_t>(kind.kv_heads), head_dim,
          useful_records(query_heads, head_dim, kv.pages(), limits.max_tokens)};
}

bool reads(const Op& op, TensorId id) {
  return std::find(op.inputs.begin(), op.inputs.end(), id) != op.inputs.end();
}

// The rotation that the kernel which appends keys and values does as well, or null: the op directly before
// the attention, of exactly its queries and keys, whose result no other op reads.
const Op* fused_rope(const Graph& graph, const Op& op, const Attention& attention) {
  if (&op == graph.ops.data()) return nullptr;
  const Op& before = *(&op - 1);
  const auto* rope = std::get_if<Rope>(&before.kind);
  if (rope == nullptr || before.outputs[0] != op.inputs[0] || rope->inverse_frequency.empty() ||
      rope->heads != attention.query_heads + attention.kv_heads || rope->head_dim != attention.head_dim)
    return nullptr;
  const TensorId rotated = before.outputs[0];
  for (const Op& other : graph.ops) {
    if (&other != &op && reads(other, rotated)) return nullptr;
  }
  return graph.logits == rotated ? nullptr : &before;
}

// Whether the attention after this rotation does it as well.
bool is_fused(const Graph& graph, const Op& rope) {
  if (&rope == &graph.ops.back()) return false;
  const Op& next = *(&rope + 1);
  const auto* attention = std::get_if<Attention>(&next.kind);
  return attention != nullptr && fused_rope(graph, next, *attention) != nullptr;
}

}  // namespace

Result<std::unique_ptr<Program>> CudaProgram::create(Queue& queue, const Graph& graph, const MemoryPlan& plan,
                                                     std::span<const WeightHandle> weights, DeviceKv& kv) {
  using Outcome = Result<std::unique_ptr<Program>>;
  if (std::string fault = size_fault(graph, plan.limits); !fault.empty())
    return Outcome::failure(std::move(fault));
  std::vector<AttentionShape> shapes;
  for_each_op<Attention>(graph, [&](const Op&, const Attention& attention) {
    const AttentionShape shape = shape_of(attention, kv, plan.limits);
    if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
  });
  std::unique_ptr<CudaProgram> program(new CudaProgram(queue, graph, plan, weights, kv, std::move(shapes)));
  if (std::string fault = program->allocate(); !fault.empty()) return Outcome::failure(std::move(fault));
  for (const Op& op : graph.ops) std::visit([&](const auto& kind) { program->add(op, kind); }, op.kind);
  return Outcome(std::move(program));
}

CudaProgram::CudaProgram(Queue& queue, const Graph& graph, const MemoryPlan& plan,
                         std::span<const WeightHandle> weights, DeviceKv& kv,
                         std::vector<AttentionShape> attention)
    : queue_(queue),
      graph_(graph),
      plan_(plan),
      kv_(kv),
      batch_(std::move(attention), kv.geometry().any_slides()) {
  for (const WeightHandle& handle : weights) weights_.push_back(&uploaded(handle));
}

// The arena, records of attention, and a rope table for every set of frequencies.
std::string CudaProgram::allocate() {
  auto arena = DeviceMemory::allocate(plan_.arena_bytes);
  if (!arena.ok()) return fmt::format("activations: {}", arena.error());
  arena_ = std::move(arena.value());
  queue_.fill(arena_.address(), 0xff, arena_.size());  // NaN as floats: values that no op wrote are noticed
  size_t record_bytes = 0;
  for_each_op<Attention>(graph_, [&](const Op&, const Attention& attention) {
    const AttentionShape shape = shape_of(attention, kv_, plan_.limits);
    record_bytes = std::max(record_bytes,
                            shape.records * record_floats(shape.query_heads, shape.head_dim) * sizeof(float));
  });
  auto records = DeviceMemory::allocate(record_bytes);
  if (!records.ok()) return fmt::format("attention: {}", records.error());
  records_ = std::move(records.value());
  std::string fault;
  for_each_op<Rope>(graph_, [&](const Op& op, const Rope& kind) {
    if (fault.empty()) fault = add_rope_table(op, kind);
  });
  for_each_op<RotatedGain>(graph_, [&](const Op& op, const RotatedGain&) {
    if (fault.empty()) fault = add_rotation(op);
  });
  for_each_op<Attention>(graph_, [&](const Op& op, const Attention& kind) {
    if (fault.empty()) fault = add_attention_table(op, kind);
  });
  if (!fault.empty()) return fault;
  const Status status = queue_.finish();
  return status.ok() ? std::string() : status.error();
}

// The rotation of the op's columns, unless it is there already.
std::string CudaProgram::add_rotation(const Op& op) {
  const uint32_t size = columns(op.inputs[0]);
  if (rotations_.count(size) != 0) return {};
  const tessera::Rotation rotation(size);
  const std::vector<float> signs(rotation.signs().begin(), rotation.signs().end());
  std::vector<float> factor(rotation.factor().begin(), rotation.factor().end());
  if (factor.empty()) factor.push_back(1.0f);
  auto signs_memory = DeviceMemory::allocate(signs.size() * sizeof(float));
  auto factor_memory = DeviceMemory::allocate(factor.size() * sizeof(float));
  for (auto* memory : {&signs_memory, &factor_memory}) {
    if (!memory->ok()) return fmt::format("op \"{}\": {}", op.name, memory->error());
  }
  DeviceRotation& made = rotations_[size];
  made.signs = std::move(signs_memory.value());
  made.factor = std::move(factor_memory.value());
  made.order = static_cast<uint32_t>(rotation.factor_order());
  queue_.upload(made.signs.address(), std::as_bytes(std::span(signs)));
  queue_.upload(made.factor.address(), std::as_bytes(std::span(factor)));
  return {};
}

// The table for these frequencies, and the step that computes it, unless there already is one.
std::string CudaProgram::add_rope_table(const Op& op, const Rope& kind) {
  const auto same = [&](const auto& table) { return table->inverse_frequency == kind.inverse_frequency; };
  if (std::any_of(rope_tables_.begin(), rope_tables_.end(), same)) return {};
  auto table = std::make_unique<RopeTable>();
  table->inverse_frequency = kind.inverse_frequency;
  const size_t half = kind.inverse_frequency.size();
  auto frequencies = DeviceMemory::allocate(half * sizeof(double));
  auto cosines = DeviceMemory::allocate(plan_.limits.max_tokens * half * sizeof(float));
  auto sines = DeviceMemory::allocate(plan_.limits.max_tokens * half * sizeof(float));
  for (auto* memory : {&frequencies, &cosines, &sines}) {
    if (!memory->ok()) return fmt::format("op \"{}\": {}", op.name, memory->error());
  }
  table->frequencies = std::move(frequencies.value());
  table->cosines = std::move(cosines.value());
  table->sines = std::move(sines.value());
  queue_.upload(table->frequencies.address(), std::as_bytes(std::span(table->inverse_frequency)));
  steps_.push_back([this, at = table.get()] {
    rope_table(queue_,
               {batch_.positions(), at->frequencies.view<const double>(), at->cosines.view<float>(),
                at->sines.view<float>(), static_cast<uint32_t>(at->inverse_frequency.size())},
               batch_.rows());
  });
  rope_tables_.push_back(std::move(table));
  return {};
}

// The table for attention with slopes or factors of queries, unless there already is one.
std::string CudaProgram::add_attention_table(const Op& op, const Attention& kind) {
  if ((kind.alibi == 0 && kind.log_scale_from == 0) || attention_table_of(kind) != nullptr) return {};
  auto table = std::make_unique<AttentionTable>();
  table->kind = kind;
  if (kind.alibi != 0)
    for (size_t head = 0; head < kind.query_heads; ++head) table->factors.push_back(alibi_slope(kind, head));
  if (kind.log_scale_from != 0)
    for (size_t position = 0; position < kv_.pages() * kKvPageTokens; ++position)
      table->factors.push_back(log_scale(kind, position));
  auto memory = DeviceMemory::allocate(table->factors.size() * sizeof(float));
  if (!memory.ok()) return fmt::format("op \"{}\": {}", op.name, memory.error());
  table->memory = std::move(memory.value());
  queue_.upload(table->memory.address(), std::as_bytes(std::span(table->factors)));
  attention_tables_.push_back(std::move(table));
  return {};
}

const AttentionTable* CudaProgram::attention_table_of(const Attention& kind) const {
  for (const auto& table : attention_tables_) {
    if (table->kind.alibi == kind.alibi && table->kind.query_heads == kind.query_heads &&
        table->kind.log_scale_from == kind.log_scale_from)
      return table.get();
  }
  return nullptr;
}

Rows CudaProgram::rows(TensorId id) const {
  return {arena_.view<std::byte>(plan_.offset[id]), plan_.stride[id]};
}

void CudaProgram::add(const Op& op, const Embed& kind) {
  const UploadedWeight& weight = *weights_[kind.table];
  const auto queue_rows = [this](auto job, auto function) {
    steps_.push_back([this, job, function]() mutable {
      job.tokens = batch_.tokens();
      function(queue_, job, batch_.rows());
    });
  };
  const Rows y = rows(op.outputs[0]);
  if (weight.is_table()) {
    queue_rows(EmbedTableJob{weight.table(), {}, y, columns(op.outputs[0]), kind.multiplier, {}},
               &embed_table);
  } else {
    queue_rows(EmbedJob{weight.matrix(), {}, y, columns(op.outputs[0]), kind.multiplier, {}}, &embed);
  }
}

void CudaProgram::add(const Op& op, const AddPosition& kind) {
  const UploadedWeight& weight = *weights_[kind.table];
  const auto queue_rows = [this](auto job, auto function) {
    steps_.push_back([this, job, function]() mutable {
      job.tokens = batch_.positions();
      function(queue_, job, batch_.rows());
    });
  };
  const Rows x = rows(op.inputs[0]);
  const Rows y = rows(op.outputs[0]);
  if (weight.is_table()) {
    queue_rows(EmbedTableJob{weight.table(), {}, y, columns(op.outputs[0]), 1, x}, &embed_table);
  } else {
    queue_rows(EmbedJob{weight.matrix(), {}, y, columns(op.outputs[0]), 1, x}, &embed);
  }
}

void CudaProgram::add(const Op& op, const Input&) { input_ = op.outputs[0]; }

void CudaProgram::add(const Op& op, const Norm& kind) {
  NormJob job;
  job.x = rows(op.inputs[0]);
  if (op.inputs.size() == 2) job.added = rows(op.inputs[1]);
  job.y = rows(op.outputs[0]);
  if (op.outputs.size() == 2) job.sum = rows(op.outputs[1]);
  job.gain = weights_[kind.gain]->vector();
  if (kind.bias) job.bias = weights_[*kind.bias]->vector();
  job.columns = columns(op.outputs[0]);
  job.epsilon = kind.epsilon;
  job.added_multiplier = kind.added_multiplier;
  job.type = type(op.outputs[0]);
  const RowExtent extent = graph_.tensors[op.outputs[0]].rows;
  steps_.push_back([this, job, extent, selects = kind.select_rows]() mutable {
    if (selects) job.selected = batch_.output_rows();
    norm(queue_, job, count(extent));
  });
}

// Matrices of one format that read the same activations are launched together.
void CudaProgram::add(const Op& op, const Linear& kind) {
  const RowExtent extent = graph_.tensors[op.outputs[0]].rows;
  IntegerJob integers;
  integers.x = rows(op.inputs[0]);
  integers.x_columns = columns(op.inputs[0]);
  integers.y = rows(op.outputs[0]);
  TableLinearJobs tables;
  const auto add_integers = [&] {
    if (integers.matrix_count > 0) {
      steps_.push_back([this, job = integers, extent]() mutable {
        job.tokens = count(extent);
        linear_integer(queue_, job);
      });
    }
    integers.forget_matrices();
  };
  const auto add_tables = [&] {
    if (tables.count > 0) {
      steps_.push_back([this, jobs = tables, extent]() mutable {
        jobs.set_tokens(count(extent));
        linear_table(queue_, jobs);
      });
    }
    tables = {};
  };
  uint32_t first_column = 0;
  for (const LinearPart& part : kind.parts) {
    const UploadedWeight& weight = *weights_[part.weight];
    const Global<const float> bias = part.bias ? weights_[*part.bias]->vector() : Global<const float>();
    if (weight.is_table()) {
      TableLinearJob job;
      job.weights = weight.table();
      job.bias = bias;
      job.x = integers.x;
      job.x_columns = integers.x_columns;
      job.y = integers.y;
      job.first_column = first_column;
      if (!tables.add(job)) {
        add_tables();
        tables.add(job);
      }
    } else if (is_integer(weight.matrix().format)) {
      if (!integers.add(weight.matrix(), bias, first_column)) {
        add_integers();
        integers.add(weight.matrix(), bias, first_column);
      }
    } else {
      LinearJob job;
      job.weights = weight.matrix();
      job.bias = bias;
      job.x = integers.x;
      job.y = integers.y;
      job.first_column = first_column;
      steps_.push_back([this, job, extent]() mutable {
        job.tokens = count(extent);
        linear_float(queue_, job);
      });
    }
    first_column += static_cast<uint32_t>(weight.rows());
  }
  add_integers();
  add_tables();
}

const RopeTable& CudaProgram::rope_table_of(const Rope& kind) const {
  const auto same = [&](const auto& table) { return table->inverse_frequency == kind.inverse_frequency; };
  return **std::find_if(rope_tables_.begin(), rope_tables_.end(), same);
}

void CudaProgram::add(const Op& op, const HeadNorm& kind) {
  HeadNormJob job;
  job.x = rows(op.inputs[0]);
  job.y = rows(op.outputs[0]);
  job.query_gain = weights_[kind.query_gain]->vector();
  job.key_gain = weights_[kind.key_gain]->vector();
  job.query_heads = static_cast<uint32_t>(kind.query_heads);
  job.kv_heads = static_cast<uint32_t>(kind.kv_heads);
  job.head_dim = static_cast<uint32_t>(kind.head_dim);
  job.columns = columns(op.outputs[0]);
  job.epsilon = kind.epsilon;
  steps_.push_back([this, job] { head_norm(queue_, job, batch_.rows()); });
}

void CudaProgram::add(const Op& op, const Rope& kind) {
  if (is_fused(graph_, op)) return;
  RopeJob job;
  job.x = rows(op.inputs[0]);
  job.y = rows(op.outputs[0]);
  const RopeTable& table = rope_table_of(kind);
  job.cosines = table.cosines.view<const float>();
  job.sines = table.sines.view<const float>();
  job.heads = static_cast<uint32_t>(kind.heads);
  job.head_dim = static_cast<uint32_t>(kind.head_dim);
  job.half = static_cast<uint32_t>(kind.inverse_frequency.size());
  job.columns = columns(op.outputs[0]);
  steps_.push_back([this, job] { rope(queue_, job, batch_.rows()); });
}

void CudaProgram::add(const Op& op, const Attention& kind) {
  AppendJob store;
  store.kv = kv_.layer(kind.layer);
  store.x = rows(op.inputs[0]);
  store.query_heads = static_cast<uint32_t>(kind.query_heads);
  store.y = store.x;
  if (const Op* before = fused_rope(graph_, op, kind)) {
    const RopeTable& table = rope_table_of(std::get<Rope>(before->kind));
    store.x = rows(before->inputs[0]);
    store.cosines = table.cosines.view<const float>();
    store.sines = table.sines.view<const float>();
    store.half = static_cast<uint32_t>(table.inverse_frequency.size());
  }
  AttentionJob job;
  job.kv = store.kv;
  job.qkv = store.y;
  job.y = rows(op.outputs[0]);
  job.query_heads = store.query_heads;
  job.scale = kind.scale;
  // Positions are below 2^32, so a window beyond that hides nothing.
  job.window = kind.window > std::numeric_limits<uint32_t>::max() ? 0 : static_cast<uint32_t>(kind.window);
  job.soft_cap = kind.soft_cap;
  if (const AttentionTable* table = attention_table_of(kind)) {
    const size_t slopes = kind.alibi != 0 ? kind.query_heads : 0;
    if (slopes != 0) job.slopes = table->memory.view<const float>();
    if (kind.log_scale_from != 0) job.query_factors = table->memory.view<const float>(slopes * sizeof(float));
  }
  job.records = records_.view<float>();
  const bool window = kv_.geometry().layer_slides(kind.layer);
  steps_.push_back([this, store, job, window, shape = shape_of(kind, kv_, plan_.limits)]() mutable {
    store.positions = batch_.positions();
    store.first_page = batch_.first_pages();
    store.page_ids = batch_.page_ids(window);
    append(queue_, store, batch_.rows());
    job.page_ids = store.page_ids;
    attend(queue_, job, batch_.tiles(shape));
  });
}

void CudaProgram::add(const Op& op, const SoftCap& kind) {
  const SoftCapJob job{rows(op.inputs[0]), rows(op.outputs[0]), columns(op.outputs[0]), kind.cap};
  steps_.push_back(
      [this, job, extent = graph_.tensors[op.outputs[0]].rows] { soft_cap(queue_, job, count(extent)); });
}

void CudaProgram::add(const Op& op, const Gate& kind) {
  const GateJob job{rows(op.inputs[0]),  rows(op.outputs[0]), columns(op.outputs[0]),
                    type(op.outputs[0]), kind.function,       kind.has_up};
  steps_.push_back(
      [this, job, extent = graph_.tensors[op.outputs[0]].rows] { gate(queue_, job, count(extent)); });
}

void CudaProgram::add(const Op& op, const Quantize&) {
  const QuantizeJob job{rows(op.inputs[0]), rows(op.outputs[0]), columns(op.outputs[0]), type(op.outputs[0])};
  steps_.push_back(
      [this, job, extent = graph_.tensors[op.outputs[0]].rows] { quantize(queue_, job, count(extent)); });
}

void CudaProgram::add(const Op& op, const Gather& kind) {
  const GatherJob job{rows(op.inputs[0]), rows(op.outputs[0]), weights_[kind.order]->order(),
                      columns(op.outputs[0]), type(op.outputs[0])};
  steps_.push_back(
      [this, job, extent = graph_.tensors[op.outputs[0]].rows] { gather(queue_, job, count(extent)); });
}

void CudaProgram::add(const Op& op, const RotatedGain& kind) {
  const DeviceRotation& rotation = rotations_.at(columns(op.inputs[0]));
  RotatedGainJob job;
  job.x = rows(op.inputs[0]);
  job.y = rows(op.outputs[0]);
  job.gain = weights_[kind.gain]->vector();
  job.signs = rotation.signs.view<const float>();
  job.factor = rotation.factor.view<const float>();
  job.order = rotation.order;
  job.columns = columns(op.outputs[0]);
  steps_.push_back(
      [this, job, extent = graph_.tensors[op.outputs[0]].rows] { rotated_gain(queue_, job, count(extent)); });
}

// Uploads what the kernels read of the batch, and its input rows.
Status CudaProgram::load(const Batch& batch) {
  if (Status status = batch_.load(queue_, batch); !status.ok()) return status;
  if (!input_) return Status::success();
  const Rows input = rows(*input_);
  queue_.upload_rows(input.base.address(), std::as_bytes(batch.input).data(),
                     input_columns(graph_) * sizeof(float), input.stride, batch.tokens.size());
  return Status::success();
}

void CudaProgram::queue_steps(const Batch& batch) {
  if (batch.sequences.size() == batch.tokens.size()) {
    queue_decoding_step();
  } else {
    for (const auto& step : steps_) step();
  }
}

void CudaProgram::queue_decoding_step() {
  const std::vector<uint64_t> key = batch_.key();
  const auto same = [&](const DecodingStep& step) { return step.key == key; };
  auto known = std::find_if(decoding_steps_.begin(), decoding_steps_.end(), same);
  const bool is_new = known == decoding_steps_.end();
  if (is_new) {
    if (decoding_steps_.size() == kMostDecodingSteps) {
      decoding_steps_.erase(std::min_element(
          decoding_steps_.begin(), decoding_steps_.end(),
          [](const DecodingStep& a, const DecodingStep& b) { return a.last_used < b.last_used; }));
    }
    decoding_steps_.emplace_back();
    known = decoding_steps_.end() - 1;
    known->key = key;
  }
  known->last_used = ++clock_;
  // The first time also loads kernels, which cannot be done while recording.
  if (!is_new && !known->recording && !known->cannot_be_recorded) {
    queue_.begin_recording();
    for (const auto& step : steps_) step();
    auto made = queue_.end_recording();
    known->cannot_be_recorded = !made.ok();
    if (made.ok()) known->recording = std::move(made.value());
  }
  if (known->recording) {
    queue_.replay(*known->recording);
  } else {
    for (const auto& step : steps_) step();
  }
}

size_t CudaProgram::recordings() const {
  return static_cast<size_t>(
      std::count_if(decoding_steps_.begin(), decoding_steps_.end(),
                    [](const DecodingStep& step) { return step.recording.has_value(); }));
}

Status CudaProgram::execute(const Batch& batch, std::span<float> logits) {
  const size_t vocabulary = graph_.tensors[graph_.logits].columns;
  if (Status status = load(batch); !status.ok()) return status;
  queue_steps(batch);
  const Rows result = rows(graph_.logits);
  queue_.download_rows(std::as_writable_bytes(logits).data(), result.base.address(),
                       vocabulary * sizeof(float), result.stride, batch_.outputs());
  return finished();
}

size_t CudaProgram::most_best() const {
  return graph_.tensors[graph_.logits].columns <= kBestTokensColumns ? kMostBestTokens : 0;
}

Status CudaProgram::execute_best(const Batch& batch, size_t count, std::span<TokenLogit> best) {
  if (Status status = load(batch); !status.ok()) return status;
  if (Status status = reserve_best(count); !status.ok()) return status;
  queue_steps(batch);
  const size_t results = batch_.outputs() * count * sizeof(TokenLogit);
  BestTokensJob job;
  job.logits = rows(graph_.logits);
  job.columns = columns(graph_.logits);
  job.count = static_cast<uint32_t>(count);
  job.best = best_.view<TokenLogit>();
  job.scratch = best_.view<uint64_t>(results);
  best_tokens(queue_, job, batch_.outputs());
  queue_.download(std::as_writable_bytes(best).first(results), best_.address());
  return finished();
}

// Memory for the results and the scratch of this batch.
Status CudaProgram::reserve_best(size_t count) {
  const size_t bytes = batch_.outputs() * count * sizeof(TokenLogit) +
                       sizeof(uint64_t) * best_tokens_scratch(batch_.outputs(), columns(graph_.logits),
                                                              static_cast<uint32_t>(count));
  if (bytes <= best_.size()) return Status::success();
  best_ = DeviceMemory();
  auto made = DeviceMemory::allocate(bytes);
  if (!made.ok()) return Status::failure(fmt::format("best logits: {}", made.error()));
  best_ = std::move(made.value());
  return Status::success();
}

Status CudaProgram::finished() {
  Status status = queue_.finish();
  if (status.ok()) return status;
  return Status::failure(fmt::format("cuda: {}", status.error()));
}

}  // namespace tessera::cuda
