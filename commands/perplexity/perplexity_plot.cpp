// Quality against size as SVG: perplexity above, mean KL divergence below, one colour per file and one marker
// per KV precision.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "commands/perplexity/perplexity_report.h"
#include "commands/plot/scatter.h"

namespace tessera {

namespace {

constexpr double kWidth = 760;
constexpr double kPanelHeight = 250;
constexpr double kLeft = 90;
constexpr double kRight = 30;
constexpr double kTop = 74;
constexpr double kBetween = 34;
constexpr double kBottom = 60;
constexpr double kManyTimes = 4;  // perplexities this far apart are drawn on a logarithmic axis

Marker marker_of(unsigned kv_bits) {
  return kv_bits == 16 ? Marker::circle : kv_bits == 8 ? Marker::square : Marker::triangle;
}

}  // namespace

std::string quality_svg(const QualityReport& report) {
  std::vector<Series> perplexities;
  std::vector<Series> divergences;
  std::vector<std::string> files;
  std::vector<unsigned> precisions;
  Range sizes, perplexity, divergence;
  const auto add = [&](const QualityRow& row) {
    const auto found = std::find(files.begin(), files.end(), row.file);
    const auto index = static_cast<size_t>(found - files.begin());
    if (found == files.end()) {
      files.push_back(row.file);
      const Series series{row.name, fmt::format("c{}", index % kSvgColours), {}};
      perplexities.push_back(series);
      divergences.push_back(series);
    }
    if (std::find(precisions.begin(), precisions.end(), row.kv_bits) == precisions.end()) {
      precisions.push_back(row.kv_bits);
    }
    const double size = static_cast<double>(row.file_bytes) / static_cast<double>(1 << 20);
    const Marker marker = marker_of(row.kv_bits);
    sizes.add(size);
    perplexity.add(row.quality.perplexity());
    perplexities[index].points.push_back({size, row.quality.perplexity(), marker});
    // Where nothing differs there is no place on a logarithmic axis.
    if (row.quality.divergence && row.quality.divergence->kl().mean() > 0) {
      divergence.add(row.quality.divergence->kl().mean());
      divergences[index].points.push_back({size, row.quality.divergence->kl().mean(), marker});
    }
  };
  if (report.reference) add(*report.reference);
  for (const QualityRow& row : report.models) add(row);
  std::sort(precisions.begin(), precisions.end(), std::greater<>());

  const double second_top = kTop + kPanelHeight + kBetween;
  const double height = (divergence.empty ? kTop + kPanelHeight : second_top + kPanelHeight) + kBottom;
  SvgPicture picture(kWidth, height);
  picture.text(kLeft, 24, "start", "quality against size");
  picture.text(kLeft, 42, "start", report.description.substr(0, report.description.find(';')), "soft");
  double legend = kLeft;
  for (const unsigned bits : precisions) {
    picture.marker(marker_of(bits), legend + 5, 56, "ink");
    picture.text(legend + 15, 60, "start", fmt::format("KV {} bits", bits), "soft");
    legend += 90;
  }

  const Axis x = close_axis(sizes.least, sizes.most, kLeft, kWidth - kRight, true);
  const bool far_apart = perplexity.most > kManyTimes * perplexity.least;
  const Axis above = close_axis(perplexity.least, perplexity.most, kTop + kPanelHeight, kTop, far_apart);
  draw_scatter(picture, perplexities, x, above, kRight);
  picture.upright_text(24, (above.from + above.to) / 2, "perplexity");
  if (!divergence.empty) {
    const Axis below =
        close_axis(divergence.least, divergence.most, second_top + kPanelHeight, second_top, true);
    draw_scatter(picture, divergences, x, below, kRight);
    picture.upright_text(24, (below.from + below.to) / 2,
                         fmt::format("mean KL from {}, nats", report.reference->name));
  }
  picture.text((x.from + x.to) / 2, height - 18, "middle", "file size in MiB");
  return picture.finish();
}

}  // namespace tessera
