// Several lambdas as one function object: the argument of std::visit that handles each kind of op by itself.
#pragma once

namespace tessera {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

}  // namespace tessera
