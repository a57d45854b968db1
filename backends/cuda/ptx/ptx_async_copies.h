// Device functions of one PTX instruction each, for nvcc: copies by asynchronous units, and what orders and
// awaits them. emulator/emulated_async_copies.h has the same functions for the host.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

// mbarriers and bulk copies need sm_90: kernels that use them have no body for older targets.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool kHasBulkCopies = false;
#else
inline constexpr bool kHasBulkCopies = true;
#endif

// ---- kernels that begin while the one before them still runs (launch.h); nothing before sm_90 ----
// The next kernel may begin once every block has called this or has ended.
TESSERA_DEVICE void griddepcontrol_launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Waits until the kernels before this one have ended and their writes are visible.
TESSERA_DEVICE void griddepcontrol_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- mbarriers: 8 bytes of shared memory, aligned to 8. A phase completes when the number of arrivals given
// to mbarrier_init and all announced bytes are there; then the next phase begins. ----
TESSERA_DEVICE void mbarrier_init(std::byte* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
// Makes the thread's mbarrier_init visible to asynchronous copies; for other threads a barrier is needed too.
TESSERA_DEVICE void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives. The thread's earlier accesses are ordered before those of threads that wait for the phase.
TESSERA_DEVICE void mbarrier_arrive(std::byte* barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// Announces `bytes` bytes of copies for the current phase, and arrives.
TESSERA_DEVICE void mbarrier_arrive_expect(std::byte* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
TESSERA_DEVICE bool mbarrier_try_wait(std::byte* barrier, uint32_t parity) {
  uint32_t complete;
  asm volatile(
      "{\n\t.reg .pred done;\n\t"
      "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%1], %2;\n\t"
      "selp.u32 %0, 1, 0, done;\n\t}"
      : "=r"(complete)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
}
// Waits until the phase of that parity (0 for the first) is complete. Returns at once for the parity of the
// phase before the current one.
TESSERA_DEVICE void mbarrier_wait(std::byte* barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

// ---- copies ----
// Cache policy for data that is read once: the L2 cache evicts it first.
TESSERA_DEVICE uint64_t evict_first_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// Cache policy for data that other blocks read as well.
TESSERA_DEVICE uint64_t evict_normal_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// Starts a copy of `bytes` bytes, a multiple of 16, between addresses aligned to 16; the bytes count for the
// current phase of the mbarrier when they land.
TESSERA_DEVICE void bulk_copy(std::byte* shared, const std::byte* global, uint32_t bytes, std::byte* barrier,
                              uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}
// cp_async_16 with a cache policy.
TESSERA_DEVICE void cp_async_16_hinted(std::byte* shared, const std::byte* global, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "l"(policy)
               : "memory");
}
// Orders the thread's accesses to shared memory before later ones by bulk copies and wgmma.
TESSERA_DEVICE void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- among threads and blocks ----
// A barrier of `threads` threads, whole warps, identified by a number from 1 to 15.
TESSERA_DEVICE void named_barrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Stores a value. A thread that reads it with load_acquire sees all earlier writes of this thread and of
// those that it has waited for.
TESSERA_DEVICE void store_release(uint32_t* at, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
TESSERA_DEVICE uint32_t load_acquire(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

}  // namespace tessera::cuda
