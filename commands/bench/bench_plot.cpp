// The roofline as SVG: what the machine allows at each ratio of arithmetic to memory traffic, and where the
// tests came out below it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "commands/bench/bench.h"
#include "commands/plot/scatter.h"

namespace tessera {

namespace {

constexpr double kWidth = 760;
constexpr double kHeight = 480;
constexpr double kLeft = 80;
constexpr double kRight = 30;
constexpr double kTop = 60;
constexpr double kBottom = 60;

}  // namespace

std::string roofline_svg(const BenchReport& report) {
  const double bandwidth = std::max(report.limits.read_gbps, 1e-3);  // Gop/s at one operation per byte
  const double peak = std::max(report.limits.int8_gops, 1e-3);
  Range intensities, speeds;
  for (const double value : {1.0, peak / bandwidth * 10}) intensities.add(value);
  for (const double value : {bandwidth, peak}) speeds.add(value);
  const auto intensity = [](const BenchResult& result) {
    const bool attention = result.test.kind == BenchTest::Kind::attention;
    return result.operations_per_token / (attention ? result.kv_bytes_per_token : result.bytes_per_token);
  };
  const auto speed = [](const BenchResult& result) {
    return result.operations_per_token * result.tokens_per_second * 1e-9;
  };
  for (const BenchResult& result : report.results) {
    intensities.add(intensity(result));
    speeds.add(speed(result));
  }
  const Axis x = decade_axis(intensities.least, intensities.most, kLeft, kWidth - kRight);
  const Axis y = decade_axis(speeds.least, speeds.most, kHeight - kBottom, kTop);

  SvgPicture picture(kWidth, kHeight);
  picture.text(kLeft, 24, "start",
               fmt::format("{} {}, KV {} bits: {}, {} threads", report.model, report.scheme, report.kv_bits,
                           report.processor, report.threads));
  picture.text(kLeft, 42, "start", fmt::format("roof: {:.1f} GB/s read, {:.0f} Gop/s int8", bandwidth, peak));
  picture.axes(x, y);
  picture.text((x.from + x.to) / 2, kHeight - 16, "middle",
               "operations per byte of weights (of KV cache for attention)");
  picture.upright_text(20, (y.from + y.to) / 2, "Gop/s");

  // The slope begins where it enters the picture and ends at the ridge, from where the peak is the limit.
  const double ridge = peak / bandwidth;
  const double start = std::max(std::pow(10.0, x.low), std::pow(10.0, y.low) / bandwidth);
  picture.line(x.at(start), y.at(start * bandwidth), x.at(ridge), y.at(peak), "ink", 2);
  picture.line(x.at(ridge), y.at(peak), x.to, y.at(peak), "ink", 2);

  for (const BenchResult& result : report.results) {
    const double at_x = x.at(intensity(result));
    const double at_y = y.at(speed(result));
    picture.marker(Marker::circle, at_x, at_y, result.memory_bound ? "c1" : "c0");
    const bool near_edge = at_x > kWidth - 160;
    picture.text(near_edge ? at_x - 8 : at_x + 8, at_y + 14, near_edge ? "end" : "start",
                 fmt::format("{} {:.0f} %", result.test.name(), result.share * 100));
  }
  return picture.finish();
}

}  // namespace tessera
