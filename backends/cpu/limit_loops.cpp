#include "backends/cpu/limit_loops.h"

#include "backends/cpu/cpu_features.h"

namespace tessera::cpu {

const LimitLoops& limit_loops() {
#if defined(__x86_64__)
  const Features features = detect_features();
  if (features.avx512) return avx512_limit_loops();
  if (features.avx2) return avx2_limit_loops();
#endif
  return portable_limit_loops();
}

}  // namespace tessera::cpu
