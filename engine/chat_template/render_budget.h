// Limits on what rendering a chat template may cost: steps of work, and bytes of values that exist at the
// same time. Every value and every buffer of the interpreter holds a Charge, so that a hostile template
// reaches these limits before it exhausts the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace tessera::jinja {

// Thrown when rendering cannot go on. The renderer adds the line number and throws a TemplateError instead.
struct Fault {
  std::string message;
};
[[noreturn]] void fail(std::string message);  // throws Fault

class Budget {
 public:
  // Text that is copied or searched costs one step per this many bytes.
  static constexpr uint64_t kBytesPerStep = 32;

  // input_bytes: size of the conversation that is rendered; a longer one may cost more.
  explicit Budget(size_t input_bytes);
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Counts steps of work; throws Fault when there were too many.
  void spend(uint64_t steps);
  // Counts the steps that copying, searching or comparing this many bytes costs.
  void spend_bytes(uint64_t bytes);
  // Throws Fault when this many more bytes would exceed the limit; holds nothing.
  void require(uint64_t bytes) const;
  // Counts bytes of a value that exists from now on; throws Fault when they exceed the limit.
  void hold(uint64_t bytes);
  // Undoes hold.
  void release(uint64_t bytes) noexcept { held_ -= bytes; }

  // Counts how deep a value is being walked through while it lives: lists and dicts that change after they
  // were made may nest without end. Throws Fault beyond the limit.
  class Level {
   public:
    explicit Level(Budget& budget);
    ~Level() { --budget_.levels_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget& budget_;
  };

 private:
  size_t levels_ = 0;
  uint64_t steps_left_;
  uint64_t held_ = 0;
  uint64_t most_held_;
};

// Holds bytes of a budget for as long as this object lives. A default-constructed one holds nothing and never
// grows: it is for constants of the parsed template, which no budget counts.
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
  // bytes: at most what is held.
  void shrink(uint64_t bytes) noexcept {
    if (budget_ == nullptr) return;
    budget_->release(bytes);
    bytes_ -= bytes;
  }

 private:
  Budget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace tessera::jinja
