#include "engine/quantize/calibration/calibration_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string_view>

namespace tessera::quantize {

namespace {

constexpr size_t kDefaultWindow = 1024;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// The index, below total, of the i-th of `count` things that are chosen evenly spread over total.
size_t spread(size_t i, size_t count, size_t total) { return count >= total ? i : i * total / count; }

}  // namespace

std::vector<size_t> CalibrationWindows::lengths() const {
  std::vector<size_t> result;
  for (const auto& window : windows) result.push_back(window.size());
  return result;
}

size_t CalibrationWindows::tokens() const {
  return std::accumulate(windows.begin(), windows.end(), size_t{0},
                         [](size_t sum, const auto& window) { return sum + window.size(); });
}

CalibrationWindows cut_calibration_text(const CalibrationText& text, const Tokenizer& tokenizer,
                                        size_t context) {
  if (text.window > context)
    throw std::runtime_error(fmt::format(
        "calibration window: expected at most the model's context of {}, found {}", context, text.window));
  const size_t window = text.window != 0 ? text.window : std::min(kDefaultWindow, context);
  const std::optional<uint32_t> bos = tokenizer.adds_bos() ? tokenizer.bos() : std::nullopt;
  CalibrationWindows result;
  const auto add = [&](std::span<const uint32_t> ids) {
    std::vector<uint32_t>& tokens = result.windows.emplace_back();
    if (bos && ids.front() != *bos) tokens.push_back(*bos);
    const size_t room = window - tokens.size();
    tokens.insert(tokens.end(), ids.begin(),
                  ids.begin() + static_cast<std::ptrdiff_t>(std::min(room, ids.size())));
  };
  if (text.lines) {
    const std::vector<std::string_view> lines = lines_of(text.text);
    const size_t count = std::min(text.windows, lines.size());
    for (size_t i = 0; i < count; ++i) {
      const std::vector<uint32_t> ids =
          tokenizer.encode(lines[spread(i, count, lines.size())], text.parse_special);
      if (!ids.empty()) add(ids);
    }
  } else {
    const std::vector<uint32_t> ids = tokenizer.encode(text.text, text.parse_special);
    const size_t room = window > 1 && bos ? window - 1 : window;
    const size_t whole = std::max<size_t>(ids.size() / room, ids.empty() ? 0 : 1);
    const size_t count = std::min(text.windows, whole);
    for (size_t i = 0; i < count; ++i) {
      const size_t begin = spread(i, count, whole) * room;
      add(std::span(ids).subspan(begin, std::min(room, ids.size() - begin)));
    }
  }
  if (result.windows.empty())
    throw std::runtime_error("calibration text: expected at least one token, found none");
  return result;
}

}  // namespace tessera::quantize
