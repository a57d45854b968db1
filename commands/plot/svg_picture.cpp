#include "commands/plot/svg_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera {

namespace {

// Colours that differ in lightness as well as in hue, with lighter ones for dark screens.
constexpr const char* kStyle =
    "<style>\n"
    ".paper{fill:#ffffff} .marker{fill:currentColor;stroke:#ffffff} .ink{color:#1f2328} .soft{color:#59636e} "
    ".grid{color:#d8dee4}\n"
    ".c0{color:#0969da} .c1{color:#cf222e} .c2{color:#1a7f37} .c3{color:#9a6700}\n"
    ".c4{color:#8250df} .c5{color:#bf3989} .c6{color:#0e7490} .c7{color:#57606a}\n"
    "@media (prefers-color-scheme: dark) {\n"
    ".paper{fill:#161b22} .marker{stroke:#161b22} .ink{color:#e6edf3} .soft{color:#9da7b1} "
    ".grid{color:#343b44}\n"
    ".c0{color:#58a6ff} .c1{color:#ff7b72} .c2{color:#56d364} .c3{color:#e3b341}\n"
    ".c4{color:#bc8cff} .c5{color:#f778ba} .c6{color:#39c5cf} .c7{color:#b1bac4}\n"
    "}\n"
    "text{fill:currentColor}\n"
    "</style>\n";

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) result += c;
    }
  }
  return result;
}

std::string tick_label(double value) {
  if (value >= 1e-4 && value < 1e6) return fmt::format("{:g}", value);
  const double exponent = std::floor(std::log10(value) + 1e-9);
  return fmt::format("{:.0f}e{:.0f}", value / std::pow(10.0, exponent), exponent);
}

// 1, 2 or 5 times a power of ten that cuts the span into at most `most` pieces.
double round_step(double span, double most) {
  const double power = std::pow(10.0, std::floor(std::log10(span / most)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (span / (step * power) <= most) return step * power;
  }
  return 10 * power;
}

}  // namespace

double Axis::at(double value) const {
  const double place = logarithmic ? std::log10(value) : value;
  return from + (place - low) / (high - low) * (to - from);
}

Axis decade_axis(double least, double most, double from, double to) {
  Axis axis{true, std::floor(std::log10(least)), 0, from, to, {}};
  axis.high = std::max(std::ceil(std::log10(most)), axis.low + 1);
  for (double exponent = axis.low; exponent <= axis.high; ++exponent) {
    const double value = std::pow(10.0, exponent);
    axis.ticks.push_back({value, tick_label(value)});
  }
  return axis;
}

Axis close_axis(double least, double most, double from, double to, bool logarithmic) {
  Axis axis{
      logarithmic, logarithmic ? std::log10(least) : least, logarithmic ? std::log10(most) : most, from, to,
      {}};
  const double span = axis.high - axis.low;
  // Space for markers at the ends, and a span of some size where all values are the same.
  const double room = span > 0 ? span * 0.08 : logarithmic ? 0.1 : std::max(std::abs(least) * 0.05, 1e-9);
  axis.low -= room;
  axis.high += room;
  if (!logarithmic) {
    const double step = round_step(axis.high - axis.low, 7);
    const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
    for (double count = std::ceil(axis.low / step); count * step <= axis.high; ++count) {
      axis.ticks.push_back({count * step, fmt::format("{:.{}f}", count * step, decimals)});
    }
    return axis;
  }
  const double decades = axis.high - axis.low;
  const std::vector<double> digits = decades > 2.5   ? std::vector<double>{1}
                                     : decades > 1.2 ? std::vector<double>{1, 2, 5}
                                                     : std::vector<double>{1, 1.5, 2, 3, 4, 5, 6, 8};
  for (double exponent = std::floor(axis.low); exponent <= axis.high; ++exponent) {
    for (const double digit : digits) {
      const double place = exponent + std::log10(digit);
      if (place < axis.low || place > axis.high) continue;
      const double value = digit * std::pow(10.0, exponent);
      axis.ticks.push_back({value, tick_label(value)});
    }
  }
  return axis;
}

SvgPicture::SvgPicture(double width, double height) : width_(width), height_(height) {}

void SvgPicture::line(double x1, double y1, double x2, double y2, std::string_view tone, double width) {
  body_ += fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"currentColor\" "
      "stroke-width=\"{}\"/>\n",
      tone, x1, y1, x2, y2, width);
}

void SvgPicture::text(double x, double y, std::string_view anchor, std::string_view content,
                      std::string_view tone) {
  body_ += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", tone, x,
                       y, anchor, escaped(content));
}

void SvgPicture::upright_text(double x, double y, std::string_view content) {
  body_ += fmt::format(
      "<text class=\"ink\" x=\"{0:.1f}\" y=\"{1:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 {0:.1f} "
      "{1:.1f})\">{2}</text>\n",
      x, y, escaped(content));
}

void SvgPicture::marker(Marker shape, double x, double y, std::string_view tone) {
  // Round ones are larger and square ones smaller, so that one shows behind the other.
  switch (shape) {
    case Marker::circle:
      body_ += fmt::format("<circle class=\"marker {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>\n", tone, x, y);
      return;
    case Marker::square:
      body_ += fmt::format("<rect class=\"marker {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"6\" height=\"6\"/>\n",
                           tone, x - 3, y - 3);
      return;
    case Marker::triangle:
      body_ +=
          fmt::format("<polygon class=\"marker {}\" points=\"{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}\"/>\n",
                      tone, x, y - 5, x + 5, y + 4, x - 5, y + 4);
      return;
  }
}

void SvgPicture::axes(const Axis& x, const Axis& y) {
  for (const AxisTick& tick : x.ticks) {
    const double at = x.at(tick.value);
    line(at, y.from, at, y.to, "grid", 1);
    text(at, y.from + 18, "middle", tick.label, "soft");
  }
  for (const AxisTick& tick : y.ticks) {
    const double at = y.at(tick.value);
    line(x.from, at, x.to, at, "grid", 1);
    text(x.from - 8, at + 4, "end", tick.label, "soft");
  }
}

std::string SvgPicture::finish() const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n{2}<rect class=\"paper\" width=\"{0}\" "
      "height=\"{1}\"/>\n{3}</svg>\n",
      width_, height_, kStyle, body_);
}

}  // namespace tessera
