// What one rendering of a chat template may use: steps of work and bytes alive at once. Every value and every
// buffer of the interpreter holds a Charge, so a hostile template runs out of budget before the machine does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace tessera::jinja {

// Why a template stopped. The renderer knows the line and turns it into a TemplateError.
struct Fault {
  std::string message;
};

class Budget {
 public:
  // input_bytes: the text that the caller hands to the template; a long conversation may cost more.
  explicit Budget(size_t input_bytes);
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  void spend(uint64_t steps);         // throws Fault when too much work was done
  void spend_bytes(uint64_t bytes);   // the same for text that is copied, searched or compared
  void expect(uint64_t bytes) const;  // throws Fault when this many more bytes could not be held
  void hold(uint64_t bytes);          // throws Fault when too much is alive
  void release(uint64_t bytes) noexcept { held_ -= bytes; }  // undoes hold

 private:
  uint64_t steps_left_;
  uint64_t held_ = 0;
  uint64_t most_held_;
};

// Bytes held from a budget for as long as this object lives; the default one holds nothing, for constants
// that belong to the parsed template.
class Charge {
 public:
  Charge() = default;
  Charge(Budget& budget, uint64_t bytes) : budget_(&budget) { grow(bytes); }
  Charge(Charge&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_ != nullptr) budget_->release(bytes_);
  }

  void grow(uint64_t bytes) {
    if (budget_ == nullptr) return;
    budget_->hold(bytes);
    bytes_ += bytes;
  }

 private:
  Budget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace tessera::jinja
