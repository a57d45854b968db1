// One fiber: a function on a stack of its own that can stop in the middle and go on later. The emulator runs
// every thread of a kernel on one. Not for several operating system threads; works under the address
// sanitizer.
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
  // Runs the fiber until it suspends or its entry returns. Never from inside a fiber.
  void resume();
  // Back to whoever resumed the fiber that calls this.
  static void suspend();
  bool finished() const { return finished_; }

 private:
  friend void run_current_fiber();
  void switch_in();
  void switch_out();

  std::byte* stack_ = nullptr;
  size_t colour_ = 0;           // unused bytes at the stack's upper end
  void* saved_ = nullptr;       // where the fiber goes on; its form depends on the machine
  void* fake_stack_ = nullptr;  // the address sanitizer's own book-keeping
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;
};

}  // namespace tessera::emulator
