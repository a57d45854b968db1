// Arithmetic, slices and membership on template values, with Python's rules. Integers have 64 bits: what does
// not fit is an error.
#pragma once

#include "engine/chat_template/syntax_tree.h"
#include "engine/chat_template/value.h"

namespace tessera::jinja {

// The result of an operator from add to concatenate. Throws Fault for unsuitable types, overflow and division
// by zero.
Value apply_operator(Budget& budget, Operator operation, const Value& left, const Value& right);
// The result of an operator from equal to not_in. Throws Fault for types that have no order or contain
// nothing.
bool apply_comparison(Budget& budget, Operator operation, const Value& left, const Value& right);
// -value. Throws Fault for what is not a number, and for overflow.
Value negate(const Value& value);
// Whether a list contains `item`, a dict has it as a key, or a string has it as a substring.
bool contains(Budget& budget, const Value& container, const Value& item);
// object[start:stop:step] of a string, list or tuple; a bound that is none is left out.
Value slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step);

// Counts the steps that a search for `wanted` bytes in `text` bytes costs in the worst case, so that the
// budget covers texts that make it slow.
void spend_search(Budget& budget, size_t text, size_t wanted);
// Python's rule for the bounds of a slice with step 1: negative ones count from the end, then they are
// clamped to 0 … size.
size_t clamp_index(int64_t index, size_t size);

}  // namespace tessera::jinja
