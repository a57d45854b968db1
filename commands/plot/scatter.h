// Diagrams of labelled points: a colour for each series, lines between its points, labels that cover nothing.
#pragma once

#include <string>
#include <vector>

#include "commands/plot/svg_picture.h"

namespace tessera {

struct Point {
  double x = 0;  // values of the axes
  double y = 0;
  Marker marker = Marker::circle;
};

struct Series {
  std::string name;
  std::string tone;  // as in SvgPicture
  std::vector<Point> points;
};

// The least and the greatest of some values.
struct Range {
  double least = 0;
  double most = 0;
  bool empty = true;

  void add(double value);
};

// One diagram with its axes. Labels may reach `right_margin` pixels beyond the end of x. Series without
// points are left out.
void draw_scatter(SvgPicture& picture, const std::vector<Series>& all, const Axis& x, const Axis& y,
                  double right_margin);

}  // namespace tessera
