#include "backends/cuda/emulator/fiber.h"

#include <sys/mman.h>

#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define TESSERA_FIBER_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TESSERA_FIBER_SANITIZED 1
#endif
#endif
#if defined(TESSERA_FIBER_SANITIZED)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// A context switch in assembly where the calling convention is known; elsewhere that of the C library, which
// makes a system call each time.
#if defined(__x86_64__) && !defined(TESSERA_FIBER_UCONTEXT)
#define TESSERA_FIBER_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

namespace tessera::emulator {

namespace {

constexpr size_t kStackBytes = size_t{512} << 10;  // reserved; pages are allocated as they are used
// Stacks begin at different cache lines (cache colouring); otherwise they would all compete for the same sets
// of a cache.
constexpr size_t kColours = 1024;
constexpr size_t kColourBytes = 64;
size_t next_colour = 0;

Fiber* current = nullptr;
#if defined(TESSERA_FIBER_SANITIZED)
const void* scheduler_stack = nullptr;  // stack of the caller of resume(), from the sanitizer
size_t scheduler_stack_bytes = 0;
#endif

}  // namespace

#if defined(TESSERA_FIBER_ASSEMBLY)
// Pushes the callee-saved registers, stores the stack pointer in *save, switches to the stack `load` and pops
// its registers.
extern "C" void tessera_fiber_switch(void** save, void* load);
asm(R"(
.text
.globl tessera_fiber_switch
.type tessera_fiber_switch, @function
tessera_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_fiber_switch, .-tessera_fiber_switch
)");

namespace {
void* scheduler_saved = nullptr;
}
#else
namespace {
ucontext_t scheduler_context;
}
#endif

void run_current_fiber() {
  Fiber& fiber = *current;
#if defined(TESSERA_FIBER_SANITIZED)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  fiber.entry_(fiber.argument_);
  fiber.finished_ = true;
  fiber.switch_out();
  std::abort();  // a finished fiber is never resumed
}

Fiber::Fiber() {
  void* memory =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, 4096, PROT_NONE);  // guard page against stack overflow
  stack_ = static_cast<std::byte*>(memory);
  next_colour = (next_colour + 17) % kColours;
  colour_ = next_colour * kColourBytes;
#if !defined(TESSERA_FIBER_ASSEMBLY)
  saved_ = new (stack_ + 4096) ucontext_t;
#endif
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::start(Entry entry, void* argument) {
  assert(finished_);
  entry_ = entry;
  argument_ = argument;
  finished_ = false;
  fake_stack_ = nullptr;
#if defined(TESSERA_FIBER_SANITIZED)
  __asan_unpoison_memory_region(stack_ + 4096, kStackBytes - 4096);  // left from frames of the last run
#endif
#if defined(TESSERA_FIBER_ASSEMBLY)
  // Six registers and the return address, placed so that the function starts with the stack alignment of a
  // call.
  std::byte* top = stack_ + kStackBytes - 64 - colour_;
  std::memset(top, 0, 64);
  const auto address = reinterpret_cast<uintptr_t>(&run_current_fiber);
  std::memcpy(top + 48, &address, sizeof address);
  saved_ = top;
#else
  auto* context = static_cast<ucontext_t*>(saved_);
  getcontext(context);
  constexpr size_t kAside = 8192;  // the guard page and the context itself
  context->uc_stack.ss_sp = stack_ + kAside;
  context->uc_stack.ss_size = kStackBytes - kAside - colour_;
  context->uc_link = nullptr;
  makecontext(context, &run_current_fiber, 0);
#endif
}

void Fiber::switch_in() {
#if defined(TESSERA_FIBER_ASSEMBLY)
  tessera_fiber_switch(&scheduler_saved, saved_);
#else
  swapcontext(&scheduler_context, static_cast<ucontext_t*>(saved_));
#endif
}

void Fiber::resume() {
  assert(current == nullptr && !finished_);
  current = this;
#if defined(TESSERA_FIBER_SANITIZED)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack_, kStackBytes);
  switch_in();
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  switch_in();
#endif
  current = nullptr;
}

void Fiber::switch_out() {
#if defined(TESSERA_FIBER_SANITIZED)
  __sanitizer_start_switch_fiber(finished_ ? nullptr : &fake_stack_, scheduler_stack, scheduler_stack_bytes);
#endif
#if defined(TESSERA_FIBER_ASSEMBLY)
  tessera_fiber_switch(&saved_, scheduler_saved);
#else
  swapcontext(static_cast<ucontext_t*>(saved_), &scheduler_context);
#endif
#if defined(TESSERA_FIBER_SANITIZED)
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void Fiber::suspend() {
  assert(current != nullptr);
  current->switch_out();
}

}  // namespace tessera::emulator
