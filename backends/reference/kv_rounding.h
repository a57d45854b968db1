// What a key or value row becomes when the cache holds it in 16, 8 or 4 bits.
#pragma once

#include <span>

namespace tessera::reference {

// What the stored form keeps beside the codes of one key or value; 0 where it keeps nothing.
struct KvParameters {
  double scale = 0;   // 8 and 4 bits: the difference of neighbouring codes' values
  double middle = 0;  // 4 bits: the value of code 8
};

// out[i] is the value that the stored form of x (one token, one KV head) means, exact in float64. All
// intermediate steps are float32, roundings half to even; scale and minimum are stored as f16 and the codes
// are computed with the stored, rounded numbers:
//   16 bits: f16(x)
//    8 bits: scale = f16(max|x| / 127); code = round(x / scale) within +-127; value code * scale
//    4 bits: scale = f16((max - min) / 15), low = f16(min); code = round((x - low) / scale) within 0..15;
//            value code * scale + low
// A scale of 0 makes every code 0, so a constant row is kept to f16 precision (4 bits) and no NaN appears.
// Returns the parameters that were stored.
KvParameters round_kv(unsigned bits, std::span<const float> x, std::span<double> out);

}  // namespace tessera::reference
