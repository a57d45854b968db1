#include "commands/plot/scatter.h"

#include <algorithm>

namespace tessera {

namespace {

constexpr double kCharacterWidth = 6.7;  // of the labels' font, on average
constexpr double kLabelHeight = 13;
constexpr double kMarkerReach = 6;

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

}  // namespace

void Range::add(double value) {
  least = empty ? value : std::min(least, value);
  most = empty ? value : std::max(most, value);
  empty = false;
}

void draw_scatter(SvgPicture& picture, const std::vector<Series>& all, const Axis& x, const Axis& y,
                  double right_margin) {
  picture.axes(x, y);
  std::vector<Series> placed = all;  // points in pixels
  std::vector<Box> taken;
  for (Series& series : placed) {
    for (Point& point : series.points) {
      point.x = x.at(point.x);
      point.y = y.at(point.y);
      taken.push_back(
          {point.x - kMarkerReach, point.y - kMarkerReach, point.x + kMarkerReach, point.y + kMarkerReach});
    }
  }
  const Box panel = {x.from, y.to, x.to + right_margin - 4, y.from};
  for (const Series& series : placed) {
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
  for (const Series& series : placed) {
    if (series.points.empty()) continue;
    const Label label = place_label(series, taken, panel);
    taken.push_back(label.box);
    picture.text(label.x, label.y, label.anchor, series.name, series.tone);
  }
}

}  // namespace tessera
