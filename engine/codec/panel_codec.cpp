#include "engine/codec/panel_codec.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace tessera::panel {

namespace {

constexpr std::array kCodecs = {&kF32,  &kF16,  &kBf16, &kRowBytes, &kRowNibbles, &kProgressive, &kLut2,
                                &kLut3, &kLut4, &kInt4, &kInt8,     &kInt4m,      &kInt4k};

}  // namespace

const Codec& codec_of(CodeKind kind) {
  const auto found =
      std::find_if(kCodecs.begin(), kCodecs.end(), [&](const Codec* codec) { return codec->kind == kind; });
  assert(found != kCodecs.end());
  return **found;
}

}  // namespace tessera::panel
