// A fiber: a function with a stack of its own that can suspend itself and be resumed later. The emulator runs
// every thread of a kernel on one. All fibers must be used from the same operating system thread. Works under
// the address sanitizer.
#pragma once

#include <cstddef>

namespace tessera::emulator {

class Fiber {
 public:
  using Entry = void (*)(void* argument);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Prepares to call entry(argument) at the next resume. Only for a fiber that is new or has finished; entry
  // must not let an exception out.
  void start(Entry entry, void* argument);
  // Runs the fiber until it suspends or its entry returns. Must not be called from inside a fiber.
  void resume();
  // Suspends the calling fiber: resume() returns.
  static void suspend();
  bool finished() const { return finished_; }

 private:
  friend void run_current_fiber();
  void switch_in();
  void switch_out();

  std::byte* stack_ = nullptr;
  size_t colour_ = 0;           // unused bytes at the stack's upper end
  void* saved_ = nullptr;       // saved context, in a form that depends on the platform
  void* fake_stack_ = nullptr;  // for the address sanitizer
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;
};

}  // namespace tessera::emulator
