// A stored matrix as the cpu backend multiplies with it: its place in memory and the kernels for its kind of
// codes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/cpu/node.h"

namespace tessera::cpu {

// Rows [first_panel * 16, …) of a matrix, up to its end.
struct PanelRange {
  size_t first = 0;
  size_t count = 0;
};

class MatrixPart {
 public:
  // weight and bias ([rows] or null) must outlive the part; y_column is the first of y's columns it writes.
  MatrixPart(const Kernels& kernels, const StoredTensor& weight, const float* bias, size_t y_column);

  size_t rows() const { return rows_; }
  size_t panels() const;
  size_t panel_bytes() const { return panel_bytes_; }  // as stored
  size_t panels_bytes() const { return panels() * panel_bytes_; }
  // Bytes that one panel takes in scratch when it is expanded for many tokens; 0 for schemes that are not.
  size_t expanded_bytes() const;

  std::span<const std::byte> bytes() const;  // of the whole stored matrix
  void move_to(const std::byte* copy);       // reads the matrix from a copy of bytes() from now on

  // y[:, y_column…] = x * W^T + bias for the rows of a range. scratch: expanded_bytes for each of its panels.
  void multiply(const RunState& run, const View& x, const View& y, PanelRange range,
                std::span<std::byte> scratch) const;

 private:
  // How matrices of one kind of codes are multiplied, and with which kernels.
  struct Product;
  static const Product kProducts[];
  static const Product& product_of(CodeKind kind);

  size_t rows_of(PanelRange range) const;
  size_t not_expanded() const { return 0; }
  size_t expanded_nibbles() const;
  size_t expanded_table() const;
  void multiply_integers(const RunState& run, const View& x, const View& y, PanelRange range,
                         std::span<std::byte> scratch) const;
  void multiply_table(const RunState& run, const View& x, const View& y, PanelRange range,
                      std::span<std::byte> scratch) const;
  void multiply_floats(const RunState& run, const View& x, const View& y, PanelRange range,
                       std::span<std::byte> scratch) const;

  const Kernels& kernels_;
  const SchemeFacts& scheme_;
  const Product& product_;
  const uint8_t* base_;
  size_t bytes_;
  size_t panel_bytes_;
  size_t rows_;
  size_t stored_columns_;
  // What the scheme stores after the panels: row arrays in the matrix, the table as a copy.
  const float* scales_ = nullptr;
  const uint8_t* zeros_ = nullptr;
  std::array<float, 16> table_{};
  const float* bias_;
  size_t y_column_;
};

}  // namespace tessera::cpu
