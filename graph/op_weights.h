// The weights that an op reads. This is the only list of them: an op that is new to OpKind does not compile
// until it has a line here, and everything that asks for the weights of an op then knows them.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <variant>

#include "graph/graph.h"

namespace tessera {

// How an op reads a weight.
enum class WeightRole : uint8_t {
  table,      // a matrix whose row number t is looked up for token id t
  positions,  // a matrix whose row number p is looked up for position p
  matrix,     // a matrix that is multiplied as a whole
  vector,     // one value per column
  order,      // a vector of u32 that names every column once
};

namespace op_weights {

template <class Type, class Kind>
concept MaybeConst = std::same_as<std::remove_const_t<Type>, Kind>;

template <class Function>
struct Visitor {
  Function& f;

  void operator()(MaybeConst<Embed> auto& embed) const { f(embed.table, WeightRole::table); }
  void operator()(MaybeConst<AddPosition> auto& add) const { f(add.table, WeightRole::positions); }
  void operator()(MaybeConst<Input> auto&) const {}
  void operator()(MaybeConst<Norm> auto& norm) const {
    f(norm.gain, WeightRole::vector);
    if (norm.bias) f(*norm.bias, WeightRole::vector);
  }
  void operator()(MaybeConst<Linear> auto& linear) const {
    for (auto& part : linear.parts) {
      f(part.weight, WeightRole::matrix);
      if (part.bias) f(*part.bias, WeightRole::vector);
    }
  }
  void operator()(MaybeConst<HeadNorm> auto& norm) const {
    f(norm.query_gain, WeightRole::vector);
    f(norm.key_gain, WeightRole::vector);
  }
  void operator()(MaybeConst<Rope> auto&) const {}
  void operator()(MaybeConst<Attention> auto&) const {}
  void operator()(MaybeConst<Gate> auto&) const {}
  void operator()(MaybeConst<SoftCap> auto&) const {}
  void operator()(MaybeConst<Quantize> auto&) const {}
  void operator()(MaybeConst<Gather> auto& gather) const { f(gather.order, WeightRole::order); }
  void operator()(MaybeConst<RotatedGain> auto& rotated) const { f(rotated.gain, WeightRole::vector); }
};

}  // namespace op_weights

// Calls f(id, role) for every weight that the op reads, in the op's order. With an op that is not const, id
// is a WeightId& that f may change.
template <op_weights::MaybeConst<Op> AnyOp, class Function>
void for_each_weight(AnyOp& op, Function&& f) {
  std::visit(op_weights::Visitor<Function>{f}, op.kind);
}

}  // namespace tessera
