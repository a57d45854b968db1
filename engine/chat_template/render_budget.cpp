#include "engine/chat_template/render_budget.h"

namespace tessera::jinja {

namespace {

constexpr uint64_t kBaseSteps = uint64_t{3} << 20;
// A template that gathers its output in a variable copies the conversation once for every message.
constexpr uint64_t kStepsPerInputByte = 16;
constexpr uint64_t kBaseBytes = uint64_t{48} << 20;
constexpr uint64_t kHeldBytesPerInputByte = 16;
constexpr size_t kMostLevels = 100;

}  // namespace

void fail(std::string message) { throw Fault{std::move(message)}; }

Budget::Budget(size_t input_bytes)
    : steps_left_(kBaseSteps + kStepsPerInputByte * input_bytes),
      most_held_(kBaseBytes + kHeldBytesPerInputByte * input_bytes) {}

void Budget::spend(uint64_t steps) {
  if (steps > steps_left_) fail("the template does too much work");
  steps_left_ -= steps;
}

void Budget::spend_bytes(uint64_t bytes) { spend(bytes / kBytesPerStep + 1); }

void Budget::require(uint64_t bytes) const {
  if (bytes > most_held_ - held_) fail("the template needs too much memory");
}

Budget::Level::Level(Budget& budget) : budget_(budget) {
  if (budget.levels_ >= kMostLevels) fail("a value contains itself or is nested too deeply");
  ++budget.levels_;
}

void Budget::hold(uint64_t bytes) {
  require(bytes);
  held_ += bytes;
}

}  // namespace tessera::jinja
