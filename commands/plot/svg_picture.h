// What diagrams are drawn with: axes, lines, markers and text that are legible on light and on dark screens.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

struct AxisTick {
  double value;
  std::string label;
};

// Maps values to pixels.
struct Axis {
  bool logarithmic = false;
  double low = 0;  // values at the ends; exponents of ten when logarithmic
  double high = 1;
  double from = 0;  // pixels
  double to = 1;
  std::vector<AxisTick> ticks;

  double at(double value) const;
};

// A logarithmic axis over whole decades, one tick each. least and most are positive.
Axis decade_axis(double least, double most, double from, double to);
// An axis that ends a little outside least and most, with ticks at round values. Both are positive for a
// logarithmic one.
Axis close_axis(double least, double most, double from, double to, bool logarithmic);

enum class Marker { circle, square, triangle };

class SvgPicture {
 public:
  SvgPicture(double width, double height);
  // tone: "ink", "soft" (less important), "grid", or one of the colours "c0" to "c7".
  void line(double x1, double y1, double x2, double y2, std::string_view tone, double width);
  // anchor: "start", "middle" or "end" of the text lies at x.
  void text(double x, double y, std::string_view anchor, std::string_view content,
            std::string_view tone = "ink");
  void upright_text(double x, double y, std::string_view content);  // read from below, centred
  void marker(Marker shape, double x, double y, std::string_view tone);
  // Grid lines and labels of both axes.
  void axes(const Axis& x, const Axis& y);
  std::string finish() const;  // the whole document

 private:
  std::string body_;
  double width_;
  double height_;
};

inline constexpr size_t kSvgColours = 8;

}  // namespace tessera
