#include "graph/graph.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "graph/overloaded.h"
#include "graph/rotation.h"

namespace tessera {

namespace {

// False when a * b does not fit size_t.
bool multiply(size_t a, size_t b, size_t& product) {
  if (b != 0 && a > std::numeric_limits<size_t>::max() / b) return false;
  product = a * b;
  return true;
}

const char* rows_name(RowExtent rows) { return rows == RowExtent::outputs ? "outputs" : "tokens"; }

bool is_matrix_scheme(Scheme scheme) { return scheme_facts(scheme).stores_matrices(); }

// Checks one op at a time; every function returns an empty string or what is wrong.
class Checker {
 public:
  explicit Checker(const Graph& graph) : graph_(graph), produced_(graph.tensors.size(), false) {}

  std::string check() {
    for (const Tensor& tensor : graph_.tensors) {
      if (tensor.columns == 0) return fmt::format("tensor \"{}\" has no columns", tensor.name);
      if (tensor.columns > kMostColumns)
        return fmt::format("tensor \"{}\" has {} columns, at most {} are supported", tensor.name,
                           tensor.columns, kMostColumns);
    }
    for (const Weight& weight : graph_.weights) {
      if (weight.rows == 0 || weight.columns == 0)
        return fmt::format("weight \"{}\" has shape [{}, {}]", weight.name, weight.rows, weight.columns);
    }
    for (const Op& op : graph_.ops) {
      const std::string fault = check_op(op);
      if (!fault.empty()) return fmt::format("op \"{}\" ({}): {}", op.name, op_name(op.kind), fault);
    }
    return check_logits();
  }

 private:
  // Far beyond any model, and small enough that the bytes of a row cannot overflow.
  static constexpr size_t kMostColumns = size_t{1} << 40;

  const Tensor& tensor(TensorId id) const { return graph_.tensors[id]; }
  const Weight& weight(WeightId id) const { return graph_.weights[id]; }

  std::string check_op(const Op& op) {
    for (const TensorId id : op.inputs) {
      if (id >= graph_.tensors.size()) return fmt::format("input tensor id {} does not exist", id);
      if (!produced_[id]) return fmt::format("input \"{}\" is read before any op writes it", tensor(id).name);
    }
    for (const TensorId id : op.outputs) {
      if (id >= graph_.tensors.size()) return fmt::format("output tensor id {} does not exist", id);
      if (produced_[id]) return fmt::format("output \"{}\" is written twice", tensor(id).name);
      produced_[id] = true;
    }
    return std::visit([&](const auto& kind) { return check_kind(op, kind); }, op.kind);
  }

  static std::string check_counts(const Op& op, size_t inputs, size_t outputs) {
    if (op.inputs.size() == inputs && op.outputs.size() == outputs) return {};
    return fmt::format("expected {} inputs and {} outputs, found {} and {}", inputs, outputs,
                       op.inputs.size(), op.outputs.size());
  }

  std::string check_shape(TensorId id, RowExtent rows, size_t columns) const {
    const Tensor& found = tensor(id);
    if (found.rows == rows && found.columns == columns) return {};
    return fmt::format("\"{}\" should be [{}, {}] and is [{}, {}]", found.name, rows_name(rows), columns,
                       rows_name(found.rows), found.columns);
  }

  std::string check_type(TensorId id, ElementType type) const {
    if (tensor(id).type == type) return {};
    return fmt::format("\"{}\" should be {} and is {}", tensor(id).name, element_name(type),
                       element_name(tensor(id).type));
  }

  // Shape and type together.
  std::string check_tensor(TensorId id, RowExtent rows, size_t columns, ElementType type) const {
    std::string fault = check_shape(id, rows, columns);
    return fault.empty() ? check_type(id, type) : fault;
  }

  std::string check_vector(WeightId id, size_t length, Scheme scheme = Scheme::f32) const {
    if (id >= graph_.weights.size()) return fmt::format("weight id {} does not exist", id);
    const Weight& found = weight(id);
    if (found.scheme != scheme)
      return fmt::format("vector \"{}\" should be {} and is {}", found.name, scheme_name(scheme),
                         scheme_name(found.scheme));
    if (found.rows != 1 || found.columns != length)
      return fmt::format("vector \"{}\" should have {} entries and is [{}, {}]", found.name, length,
                         found.rows, found.columns);
    return {};
  }

  std::string check_matrix(WeightId id) const {
    if (id >= graph_.weights.size()) return fmt::format("weight id {} does not exist", id);
    if (is_matrix_scheme(weight(id).scheme)) return {};
    return fmt::format("weight \"{}\" in scheme {} is no matrix", weight(id).name,
                       scheme_name(weight(id).scheme));
  }

  std::string check_kind(const Op& op, const Embed& kind) const {
    if (std::string fault = check_counts(op, 0, 1); !fault.empty()) return fault;
    if (std::string fault = check_matrix(kind.table); !fault.empty()) return fault;
    if (!std::isfinite(kind.multiplier)) return "the multiplier is not finite";
    return check_tensor(op.outputs[0], RowExtent::tokens, weight(kind.table).columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const AddPosition& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    if (std::string fault = check_matrix(kind.table); !fault.empty()) return fault;
    for (const TensorId id : {op.inputs[0], op.outputs[0]}) {
      if (std::string fault =
              check_tensor(id, RowExtent::tokens, weight(kind.table).columns, ElementType::f32);
          !fault.empty())
        return fault;
    }
    return {};
  }

  std::string check_kind(const Op& op, const Input&) const {
    if (std::string fault = check_counts(op, 0, 1); !fault.empty()) return fault;
    if (&op != graph_.ops.data()) return "only the first op can be an input";
    return check_tensor(op.outputs[0], RowExtent::tokens, tensor(op.outputs[0]).columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const Norm& kind) const {
    const size_t count = op.inputs.size() == 2 ? 2 : 1;
    if (std::string fault = check_counts(op, count, count); !fault.empty()) return fault;
    const Tensor& first = tensor(op.inputs[0]);
    const RowExtent read = kind.select_rows ? RowExtent::tokens : first.rows;
    const RowExtent written = kind.select_rows ? RowExtent::outputs : first.rows;
    for (const TensorId id : op.inputs) {
      if (std::string fault = check_tensor(id, read, first.columns, ElementType::f32); !fault.empty())
        return fault;
    }
    if (!(kind.epsilon >= 0.0f) || !std::isfinite(kind.epsilon))
      return fmt::format("epsilon {} is not a finite number of at least 0", kind.epsilon);
    if (!std::isfinite(kind.added_multiplier)) return "the multiplier is not finite";
    if (std::string fault = check_vector(kind.gain, first.columns); !fault.empty()) return fault;
    if (kind.bias) {
      if (std::string fault = check_vector(*kind.bias, first.columns); !fault.empty()) return fault;
    }
    if (std::string fault = check_shape(op.outputs[0], written, first.columns); !fault.empty()) return fault;
    if (count == 1) return {};
    return check_tensor(op.outputs[1], written, first.columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const Linear& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    if (kind.parts.empty()) return "no weight";
    const Tensor& input = tensor(op.inputs[0]);
    size_t columns = 0;
    for (const LinearPart& part : kind.parts) {
      if (std::string fault = check_matrix(part.weight); !fault.empty()) return fault;
      const Weight& matrix = weight(part.weight);
      if (matrix.columns != input.columns)
        return fmt::format("weight \"{}\" has {} columns, its input \"{}\" has {}", matrix.name,
                           matrix.columns, input.name, input.columns);
      if (matrix.columns > most_summed_columns(matrix.scheme))
        return fmt::format("weight \"{}\" ({}) has {} columns, its 32-bit sums hold at most {}", matrix.name,
                           scheme_name(matrix.scheme), matrix.columns, most_summed_columns(matrix.scheme));
      const ElementType read = linear_input(matrix.scheme);
      if (input.type != read)
        return fmt::format("weight \"{}\" ({}) takes {} activations, \"{}\" is {}", matrix.name,
                           scheme_name(matrix.scheme), element_name(read), input.name,
                           element_name(input.type));
      if (part.bias) {
        if (std::string fault = check_vector(*part.bias, matrix.rows); !fault.empty()) return fault;
      }
      if (matrix.rows > kMostColumns - columns) return "too many output columns";
      columns += matrix.rows;
    }
    return check_tensor(op.outputs[0], input.rows, columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const HeadNorm& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& input = tensor(op.inputs[0]);
    for (const TensorId id : {op.inputs[0], op.outputs[0]}) {
      if (std::string fault = check_tensor(id, RowExtent::tokens, input.columns, ElementType::f32);
          !fault.empty())
        return fault;
    }
    size_t normed = 0;
    if (kind.query_heads > kMostColumns || kind.kv_heads > kMostColumns || kind.head_dim == 0 ||
        !multiply(kind.query_heads + kind.kv_heads, kind.head_dim, normed) || normed > input.columns)
      return fmt::format("{} and {} heads of {} do not fit {} columns", kind.query_heads, kind.kv_heads,
                         kind.head_dim, input.columns);
    if (!(kind.epsilon >= 0.0f) || !std::isfinite(kind.epsilon))
      return fmt::format("epsilon {} is not a finite number of at least 0", kind.epsilon);
    for (const WeightId gain : {kind.query_gain, kind.key_gain}) {
      if (std::string fault = check_vector(gain, kind.head_dim); !fault.empty()) return fault;
    }
    return {};
  }

  std::string check_kind(const Op& op, const Rope& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& input = tensor(op.inputs[0]);
    for (const TensorId id : {op.inputs[0], op.outputs[0]}) {
      if (std::string fault = check_tensor(id, RowExtent::tokens, input.columns, ElementType::f32);
          !fault.empty())
        return fault;
    }
    size_t rotated = 0;
    if (!multiply(kind.heads, kind.head_dim, rotated) || rotated > input.columns)
      return fmt::format("{} heads of {} do not fit {} columns", kind.heads, kind.head_dim, input.columns);
    if (kind.inverse_frequency.size() > kind.head_dim / 2)
      return fmt::format("{} frequencies rotate more than a head of {}", kind.inverse_frequency.size(),
                         kind.head_dim);
    for (const double frequency : kind.inverse_frequency) {
      if (!std::isfinite(frequency)) return "a frequency is not finite";
    }
    return {};
  }

  std::string check_kind(const Op& op, const Attention& kind) {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    if (kind.head_dim == 0 || kind.head_dim % 8 != 0)
      return fmt::format("head size {} is no multiple of 8", kind.head_dim);
    if (kind.kv_heads == 0 || kind.query_heads == 0 || kind.query_heads % kind.kv_heads != 0)
      return fmt::format("{} query heads cannot share {} kv heads", kind.query_heads, kind.kv_heads);
    if (kind.query_heads > kMostColumns || kind.head_dim > kMostColumns) return "too many heads";
    size_t in = 0;
    if (!multiply(kind.query_heads + 2 * kind.kv_heads, kind.head_dim, in)) return "too many heads";
    if (!std::isfinite(kind.scale)) return "the scale is not finite";
    if (!(kind.soft_cap >= 0.0f) || !std::isfinite(kind.soft_cap))
      return fmt::format("soft cap {} is not a finite number of at least 0", kind.soft_cap);
    if (!(kind.alibi >= 0.0f) || !std::isfinite(kind.alibi))
      return fmt::format("ALiBi {} is not a finite number of at least 0", kind.alibi);
    if (kind.alibi > 0 && kind.soft_cap > 0) return "ALiBi and a soft cap exclude each other";
    if (kind.log_scale_from == 1) return "logarithms need a base above 1";
    if (std::string fault = check_tensor(op.inputs[0], RowExtent::tokens, in, ElementType::f32);
        !fault.empty())
      return fault;
    if (std::string fault = check_tensor(op.outputs[0], RowExtent::tokens, kind.query_heads * kind.head_dim,
                                         ElementType::f32);
        !fault.empty())
      return fault;
    // A layer's pages hold one key and one value per position, so two ops would overwrite each other.
    if (!attention_layers_.insert(kind.layer).second)
      return fmt::format("layer {} already has an attention op", kind.layer);
    return {};
  }

  std::string check_kind(const Op& op, const Gate& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& output = tensor(op.outputs[0]);
    const Tensor& input = tensor(op.inputs[0]);
    if (std::string fault = check_shape(op.outputs[0], input.rows, output.columns); !fault.empty())
      return fault;
    return check_tensor(op.inputs[0], output.rows, (kind.has_up ? 2 : 1) * output.columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const SoftCap& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    if (!(kind.cap > 0.0f) || !std::isfinite(kind.cap))
      return fmt::format("cap {} is not a finite number above 0", kind.cap);
    const Tensor& input = tensor(op.inputs[0]);
    if (std::string fault = check_type(op.inputs[0], ElementType::f32); !fault.empty()) return fault;
    return check_tensor(op.outputs[0], input.rows, input.columns, ElementType::f32);
  }

  std::string check_kind(const Op& op, const Quantize&) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& input = tensor(op.inputs[0]);
    if (std::string fault = check_type(op.inputs[0], ElementType::f32); !fault.empty()) return fault;
    if (std::string fault = check_shape(op.outputs[0], input.rows, input.columns); !fault.empty())
      return fault;
    if (tensor(op.outputs[0]).type == ElementType::f32)
      return fmt::format("output \"{}\" should be q8 or bf16 and is f32", tensor(op.outputs[0]).name);
    return {};
  }

  std::string check_kind(const Op& op, const Gather& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& input = tensor(op.inputs[0]);
    if (std::string fault = check_type(op.inputs[0], ElementType::f32); !fault.empty()) return fault;
    if (std::string fault = check_shape(op.outputs[0], input.rows, input.columns); !fault.empty())
      return fault;
    return check_vector(kind.order, input.columns, Scheme::u32);
  }

  std::string check_kind(const Op& op, const RotatedGain& kind) const {
    if (std::string fault = check_counts(op, 1, 1); !fault.empty()) return fault;
    const Tensor& input = tensor(op.inputs[0]);
    if (std::string fault = check_type(op.inputs[0], ElementType::f32); !fault.empty()) return fault;
    if (std::string fault = check_tensor(op.outputs[0], input.rows, input.columns, ElementType::f32);
        !fault.empty())
      return fault;
    const size_t order = Rotation::order_for(input.columns);
    if (order == 0 || order > RotatedGain::kMostOrder)
      return fmt::format("{} columns cannot be rotated", input.columns);
    return check_vector(kind.gain, input.columns);
  }

  std::string check_logits() const {
    if (graph_.logits >= graph_.tensors.size())
      return fmt::format("logits tensor id {} does not exist", graph_.logits);
    const Tensor& logits = tensor(graph_.logits);
    if (!produced_[graph_.logits]) return fmt::format("no op writes the logits \"{}\"", logits.name);
    if (std::string fault = check_tensor(graph_.logits, RowExtent::outputs, logits.columns, ElementType::f32);
        !fault.empty())
      return "logits " + fault;
    for (size_t id = 0; id < produced_.size(); ++id) {
      if (!produced_[id]) return fmt::format("no op writes tensor \"{}\"", graph_.tensors[id].name);
    }
    return {};
  }

  const Graph& graph_;
  std::vector<bool> produced_;
  std::unordered_set<size_t> attention_layers_;
};

}  // namespace

ElementType linear_input(Scheme scheme) {
  switch (activation_type(scheme)) {
    case ActivationType::int8:
      return ElementType::q8;
    case ActivationType::bf16:
      return ElementType::bf16;
    case ActivationType::f32:
      break;
  }
  return ElementType::f32;
}

const char* element_name(ElementType type) {
  if (type == ElementType::q8) return "q8";
  return type == ElementType::bf16 ? "bf16" : "f32";
}

const char* op_name(const OpKind& kind) {
  return std::visit([](const auto& op) { return op.kName; }, kind);
}

bool can_work_in_place(const OpKind& kind) {
  return std::visit(Overloaded{[](const Rope&) { return true; }, [](const HeadNorm&) { return true; },
                               [](const AddPosition&) { return true; }, [](const SoftCap&) { return true; },
                               [](const RotatedGain&) { return true; }, [](const auto&) { return false; }},
                    kind);
}

float alibi_slope(const Attention& attention, size_t head) {
  const size_t whole = std::bit_floor(attention.query_heads);
  const double step = static_cast<double>(attention.alibi) / static_cast<double>(whole);
  const double number =
      head < whole ? static_cast<double>(head + 1) : static_cast<double>(2 * (head - whole) + 1) / 2;
  return static_cast<float>(std::exp2(-step * number));
}

float log_scale(const Attention& attention, size_t position) {
  if (attention.log_scale_from == 0 || position + 1 <= attention.log_scale_from) return 1.0f;
  return static_cast<float>(std::log(static_cast<double>(position + 1)) /
                            std::log(static_cast<double>(attention.log_scale_from)));
}

std::string check_graph(const Graph& graph) { return Checker(graph).check(); }

size_t input_columns(const Graph& graph) {
  if (graph.ops.empty() || !std::holds_alternative<Input>(graph.ops.front().kind)) return 0;
  return graph.tensors[graph.ops.front().outputs[0]].columns;
}

}  // namespace tessera
