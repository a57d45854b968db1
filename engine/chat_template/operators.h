// Arithmetic, slices and membership on template values, with Python's rules. Integers have 64 bits: what does
// not fit is an error.
#pragma once

#include "engine/chat_template/syntax.h"
#include "engine/chat_template/value.h"

namespace tessera::jinja {

// add … concatenate. Throws Fault for types that do not fit, overflow and division by zero.
Value apply_operator(Budget& budget, Operator operation, const Value& left, const Value& right);
// equal … not_in
bool apply_comparison(Budget& budget, Operator operation, const Value& left, const Value& right);
Value negate(const Value& value);
// Whether `item` is in a list, a key of a dict, or text inside a text.
bool contains(Budget& budget, const Value& container, const Value& item);
// object[start:stop:step] of a string, list or tuple; a bound that is none is open.
Value slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step);

// Searching costs what it can cost at worst, so that no text makes it slow unnoticed.
void spend_search(Budget& budget, size_t text, size_t wanted);
// Python's rule for the bounds of a slice with step 1: from the end when negative, then clamped.
size_t clamp_index(int64_t index, size_t size);

}  // namespace tessera::jinja
