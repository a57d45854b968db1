// The cpu backend's KV cache: pages of 64 tokens. In a page every (layer, KV head) has two blocks of its own:
// K as four panels of 16 tokens (rows) by head_dim columns, V as panels of 16 head dimensions (rows) by 64
// tokens (columns), so that both sides of attention are products with panels. Scales and minima are f16, one
// per token. Codes of 8 bits are unsigned around 128 in K and signed in V, because in both products the other
// factor has the other sign.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backends/backend.h"

namespace tessera::cpu {

// The two blocks that a page has for every layer and KV head; bits is 16, 8 or 4. Offsets are in bytes.
struct KvBlockLayout {
  unsigned bits = 16;
  size_t head_dim = 0;

  size_t k_codes_bytes() const;  // codes of one K panel
  // Codes, then scales[16] (8 and 4 bits), then minima[16] (4 bits), in whole lines.
  size_t k_panel_bytes() const;
  size_t k_panel(size_t i) const { return i * k_panel_bytes(); }
  size_t k_bytes() const { return k_panel(kKvPageTokens / 16); }
  size_t v_panel_bytes() const;  // codes of one V panel (64 tokens)
  size_t v_panels() const { return (head_dim + 15) / 16; }
  size_t v_panel(size_t i) const { return i * v_panel_bytes(); }
  size_t v_scales() const { return v_panel(v_panels()); }             // f16[64]
  size_t v_minima() const { return v_scales() + 2 * kKvPageTokens; }  // f16[64], 4 bits only
  size_t v_bytes() const;
};

// Rounds one token's key and value [head_dim] into slot 0 … 63 of its K and V block. 8 bits: scale = max|x| /
// 127; 4 bits: scale = (max - min) / 15 and min; scales are rounded to f16 first and codes follow the rounded
// scale. A value that is not finite after rounding is stored as zero and its key as NaN (with codes: the
// key's scale), so that it reaches the tokens that attend to this one and no others: an infinite value would
// reach all of them, because even a weight of 0 makes it NaN.
void store_token(const KvBlockLayout& layout, uint8_t* key_block, uint8_t* value_block, size_t slot,
                 const float* key, const float* value);

// Anonymous zero pages: memory is taken only when a page is first written.
class PagedKv : public KvStorage {
 public:
  // Fails with one line: heads that are too long for the precision, no address space.
  static Result<std::unique_ptr<KvStorage>> create(const KvGeometry& geometry, size_t pages);
  static KvPageBytes page_bytes(const KvGeometry& geometry);
  ~PagedKv() override;
  PagedKv(const PagedKv&) = delete;
  PagedKv& operator=(const PagedKv&) = delete;

  // The longest sequence of the next batch will have that many tokens: a long one makes it worth while to
  // take huge pages for all of the cache. Not while a batch runs.
  void expect_tokens(size_t tokens);

  KvBlockLayout layout(size_t layer) const { return {geometry().layer_bits(layer), geometry().head_dim}; }
  // Blocks of one head in page order lie side by side: a sequence whose pages follow each other is read as
  // one stream.
  struct HeadBlocks {
    uint8_t* first_keys;
    uint8_t* first_values;
    size_t k_bytes;
    size_t v_bytes;

    uint8_t* keys(size_t page) const { return first_keys + page * k_bytes; }
    uint8_t* values(size_t page) const { return first_values + page * v_bytes; }
  };
  HeadBlocks head(size_t layer, size_t kv_head) const {
    const KvBlockLayout blocks = layout(layer);
    const size_t count = geometry().layer_pages(layer, pages());
    uint8_t* keys = base_ + layer_offset_[layer];
    uint8_t* values = keys + geometry().kv_heads * count * blocks.k_bytes();
    return {keys + kv_head * count * blocks.k_bytes(), values + kv_head * count * blocks.v_bytes(),
            blocks.k_bytes(), blocks.v_bytes()};
  }

 private:
  PagedKv(const KvGeometry& geometry, size_t pages);
  std::vector<size_t> layer_offset_;
  size_t bytes_ = 0;
  bool huge_ = false;
  uint8_t* base_ = nullptr;
};

}  // namespace tessera::cpu
