// Cuts a text into the windows that models are measured on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace tessera {

// A run of text tokens that is evaluated from an empty cache.
struct Window {
  std::span<const uint32_t> text;
  std::optional<uint32_t> first;  // a token before the text: bos
  size_t context = 1;             // leading tokens, first included, that are read but not scored; at least 1

  std::vector<uint32_t> tokens() const;
  size_t scored() const;  // tokens that are predicted
};

struct WindowPlan {
  WindowPlan() = default;
  WindowPlan(WindowPlan&&) noexcept = default;  // no copies: they would look into another plan's texts
  WindowPlan& operator=(WindowPlan&&) noexcept = default;

  std::vector<std::vector<uint32_t>> texts;  // what the windows look into
  std::vector<Window> windows;
  size_t text_tokens = 0;
  size_t left_out = 0;  // text tokens that no window holds
  bool lines = false;   // every line is a text of its own
  bool bos = false;     // windows begin with the begin token
  size_t apart = 0;     // text tokens from one window to the next when they overlap, else 0

  size_t scored() const;
  // The plan in one line: "70 windows of 1024 tokens, not overlapping, …; 71610 of 71665 text tokens
  // scored".
  std::string description() const;
};

// Windows of `window` tokens, bos included where there is one, that begin `stride` text tokens apart. A token
// is scored in the first window that has it. An incomplete window at the end is left out unless it is the
// only one. window is at least 2, and stride from 1 to the text tokens of a window.
WindowPlan plan_windows(std::vector<uint32_t> ids, std::optional<uint32_t> bos, size_t window, size_t stride);

// Every line is a text and a window, cut off after `window` tokens, at least 2.
WindowPlan plan_lines(std::string_view text, const Tokenizer& tokenizer, bool parse_special,
                      std::optional<uint32_t> bos, size_t window);

}  // namespace tessera
