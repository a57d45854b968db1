// Quality against size as SVG: perplexity above, mean KL divergence below, one colour per file and one marker
// per KV precision.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "commands/perplexity/perplexity_report.h"
#include "commands/plot/svg_picture.h"

namespace tessera {

namespace {

constexpr double kWidth = 760;
constexpr double kPanelHeight = 250;
constexpr double kLeft = 90;
constexpr double kRight = 30;
constexpr double kTop = 74;
constexpr double kBetween = 34;
constexpr double kBottom = 60;
constexpr double kCharacterWidth = 6.7;  // of the labels' font, on average
constexpr double kLabelHeight = 13;
constexpr double kMarkerReach = 6;
constexpr double kManyTimes = 4;  // perplexities this far apart are drawn on a logarithmic axis

struct Point {
  double x = 0;  // values, then pixels
  double y = 0;
  Marker marker = Marker::circle;
};

// All points of one file.
struct Series {
  std::string name;
  std::string tone;
  std::vector<Point> points;
};

Marker marker_of(unsigned kv_bits) {
  return kv_bits == 16 ? Marker::circle : kv_bits == 8 ? Marker::square : Marker::triangle;
}

struct Box {
  double left, top, right, bottom;
  bool overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
  bool within(const Box& other) const {
    return left >= other.left && right <= other.right && top >= other.top && bottom <= other.bottom;
  }
};

struct Label {
  double x, y;
  const char* anchor;
  Box box;
};

Label label_at(const std::string& text, double x, double y, const char* anchor) {
  const double width = kCharacterWidth * static_cast<double>(text.size());
  const double left = anchor[0] == 's' ? x : anchor[0] == 'e' ? x - width : x - width / 2;
  return {x, y, anchor, {left, y - kLabelHeight + 2, left + width, y + 3}};
}

// The first place near one of the points where the label covers nothing and stays in the panel; right of the
// first point when there is none.
Label place_label(const Series& series, const std::vector<Box>& taken, const Box& panel) {
  struct Offset {
    double x, y;
    const char* anchor;
  };
  std::vector<Offset> offsets = {{10, 4, "start"}, {-10, 4, "end"}, {0, -11, "middle"}, {0, 20, "middle"}};
  for (double away = 16; away <= 64; away += 16) {
    for (const double dy : {-away, away + 6}) {
      offsets.push_back({8, dy, "start"});
      offsets.push_back({-8, dy, "end"});
    }
  }
  for (const Offset& offset : offsets) {
    for (const Point& point : series.points) {
      const Label label = label_at(series.name, point.x + offset.x, point.y + offset.y, offset.anchor);
      const bool free =
          std::none_of(taken.begin(), taken.end(), [&](const Box& box) { return box.overlaps(label.box); });
      if (free && label.box.within(panel)) return label;
    }
  }
  return label_at(series.name, series.points.front().x + 10, series.points.front().y + 4, "start");
}

// One diagram. Series without points are left out.
void draw_panel(SvgPicture& picture, std::vector<Series> all, const Axis& x, const Axis& y) {
  picture.axes(x, y);
  std::vector<Box> taken;
  for (Series& series : all) {
    for (Point& point : series.points) {
      point.x = x.at(point.x);
      point.y = y.at(point.y);
      taken.push_back(
          {point.x - kMarkerReach, point.y - kMarkerReach, point.x + kMarkerReach, point.y + kMarkerReach});
    }
  }
  const Box panel = {x.from, y.to, x.to + kRight - 4, y.from};
  for (const Series& series : all) {
    for (size_t i = 1; i < series.points.size(); ++i) {
      picture.line(series.points[i - 1].x, series.points[i - 1].y, series.points[i].x, series.points[i].y,
                   series.tone, 1);
    }
    for (const Marker shape : {Marker::circle, Marker::square, Marker::triangle}) {
      for (const Point& point : series.points) {
        if (point.marker == shape) picture.marker(shape, point.x, point.y, series.tone);
      }
    }
  }
  for (const Series& series : all) {
    if (series.points.empty()) continue;
    const Label label = place_label(series, taken, panel);
    taken.push_back(label.box);
    picture.text(label.x, label.y, label.anchor, series.name, series.tone);
  }
}

struct Range {
  double least = 0;
  double most = 0;
  bool empty = true;
  void add(double value) {
    least = empty ? value : std::min(least, value);
    most = empty ? value : std::max(most, value);
    empty = false;
  }
};

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
  draw_panel(picture, perplexities, x, above);
  picture.upright_text(24, (above.from + above.to) / 2, "perplexity");
  if (!divergence.empty) {
    const Axis below =
        close_axis(divergence.least, divergence.most, second_top + kPanelHeight, second_top, true);
    draw_panel(picture, divergences, x, below);
    picture.upright_text(24, (below.from + below.to) / 2,
                         fmt::format("mean KL from {}, nats", report.reference->name));
  }
  picture.text((x.from + x.to) / 2, height - 18, "middle", "file size in MiB");
  return picture.finish();
}

}  // namespace tessera
