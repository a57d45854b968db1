// The roofline as SVG: what the machine allows at each ratio of arithmetic to memory traffic, and where the
// tests came out below it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "commands/bench.h"

namespace tessera {

namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 480;
constexpr double kLeft = 80;
constexpr double kRight = 30;
constexpr double kTop = 60;
constexpr double kBottom = 60;

// A logarithmic axis over whole decades.
struct Axis {
  double low;  // exponents of ten
  double high;
  double from;  // pixels
  double to;
  double at(double value) const { return from + (std::log10(value) - low) / (high - low) * (to - from); }
};

Axis decades(double least, double most, double from, double to) {
  const double low = std::floor(std::log10(least));
  return {low, std::max(std::ceil(std::log10(most)), low + 1), from, to};
}

std::string escaped(const std::string& text) {
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

std::string tick_label(double exponent) {
  const double value = std::pow(10.0, exponent);
  return value >= 0.01 && value < 1e6 ? fmt::format("{:g}", value) : fmt::format("1e{:.0f}", exponent);
}

}  // namespace

std::string roofline_svg(const BenchReport& report) {
  const double bandwidth = std::max(report.limits.read_gbps, 1e-3);  // Gop/s at one operation per byte
  const double peak = std::max(report.limits.int8_gops, 1e-3);
  double least_x = 1, most_x = peak / bandwidth * 10, least_y = bandwidth, most_y = peak;
  const auto intensity = [](const BenchResult& result) {
    return result.operations_per_token / result.bytes_per_token;
  };
  const auto speed = [](const BenchResult& result) {
    return result.operations_per_token * result.tokens_per_second * 1e-9;
  };
  for (const BenchResult& result : report.results) {
    least_x = std::min(least_x, intensity(result));
    most_x = std::max(most_x, intensity(result));
    least_y = std::min(least_y, speed(result));
    most_y = std::max(most_y, speed(result));
  }
  const Axis x = decades(least_x, most_x, kLeft, kWidth - kRight);
  const Axis y = decades(least_y, most_y, kHeight - kBottom, kTop);

  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight);
  const auto text = [&](double at_x, double at_y, const char* anchor, const std::string& content) {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", at_x, at_y, anchor,
                       escaped(content));
  };
  const auto line = [&](double x1, double y1, double x2, double y2, const char* stroke, double width) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"{}\"/>\n",
        x1, y1, x2, y2, stroke, width);
  };
  text(kLeft, 24, "start",
       fmt::format("{} {}, KV {} bits: {}, {} threads", report.model, report.scheme, report.kv_bits,
                   report.processor, report.threads));
  text(kLeft, 42, "start", fmt::format("roof: {:.1f} GB/s read, {:.0f} Gop/s int8", bandwidth, peak));
  for (double exponent = x.low; exponent <= x.high; ++exponent) {
    const double at = x.at(std::pow(10.0, exponent));
    line(at, y.from, at, y.to, "#dddddd", 1);
    text(at, kHeight - kBottom + 18, "middle", tick_label(exponent));
  }
  for (double exponent = y.low; exponent <= y.high; ++exponent) {
    const double at = y.at(std::pow(10.0, exponent));
    line(x.from, at, x.to, at, "#dddddd", 1);
    text(kLeft - 8, at + 4, "end", tick_label(exponent));
  }
  text((x.from + x.to) / 2, kHeight - 16, "middle", "operations per byte of weights");
  svg += fmt::format(
      "<text x=\"20\" y=\"{0:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 20 "
      "{0:.1f})\">Gop/s</text>\n",
      (y.from + y.to) / 2);

  // The slope begins where it enters the picture and ends at the ridge, from where the peak is the limit.
  const double ridge = peak / bandwidth;
  const double start = std::max(std::pow(10.0, x.low), std::pow(10.0, y.low) / bandwidth);
  line(x.at(start), y.at(start * bandwidth), x.at(ridge), y.at(peak), "#333333", 2);
  line(x.at(ridge), y.at(peak), x.to, y.at(peak), "#333333", 2);

  for (const BenchResult& result : report.results) {
    const double at_x = x.at(intensity(result));
    const double at_y = y.at(speed(result));
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n", at_x, at_y,
                       result.memory_bound ? "#c0392b" : "#2471a3");
    const bool near_edge = at_x > kWidth - 160;
    text(near_edge ? at_x - 8 : at_x + 8, at_y + 14, near_edge ? "end" : "start",
         fmt::format("{} {:.0f} %", result.test.name(), result.share * 100));
  }
  return svg + "</svg>\n";
}

}  // namespace tessera
