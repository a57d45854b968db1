// The functions of ptx/ptx_async_copies.h for the emulator. Bulk copies land as late as possible: when a
// thread waits for the mbarrier's phase. Only threads that have waited for it may read the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::cuda {

inline constexpr bool kHasBulkCopies = true;

void griddepcontrol_launch_dependents();
void griddepcontrol_wait();

uint32_t shared_address(const std::byte* at);

void mbarrier_init(std::byte* barrier, uint32_t arrivals);
void mbarrier_init_fence();
void mbarrier_arrive(std::byte* barrier);
void mbarrier_arrive_expect(std::byte* barrier, uint32_t bytes);
void mbarrier_wait(std::byte* barrier, uint32_t parity);

uint64_t evict_first_policy();
uint64_t evict_normal_policy();
void bulk_copy(std::byte* shared, const std::byte* global, uint32_t bytes, std::byte* barrier,
               uint64_t policy);
void cp_async_16_hinted(std::byte* shared, const std::byte* global, uint64_t policy);
void proxy_fence();

void named_barrier(uint32_t id, uint32_t threads);
void store_release(uint32_t* at, uint32_t value);
uint32_t load_acquire(const uint32_t* at);

}  // namespace tessera::cuda
