// How one matrix that a checkpoint holds as codes and levels is read: each packed format derives its own
// reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/packed_matrix.h"
#include "gguf-like-format/safetensors/safetensors.h"

namespace tessera {

// Constant once made; all functions but the destructor may be called from several threads. Rows asked for lie
// within the matrix.
class PackedReader {
 public:
  virtual ~PackedReader() = default;
  // Values of rows first_row ... first_row + rows - 1 by the format's formula in f32; out is [rows, columns].
  virtual void read_rows(uint64_t first_row, uint64_t rows, std::span<float> out) const = 0;
  // What the codes stand for, or nullptr where the matrix has no codes with levels for groups of columns.
  virtual const PackedFormat* format() const { return nullptr; }
  // The same rows as codes; for a matrix that has a format.
  virtual PackedRows packed_rows(uint64_t first_row, uint64_t rows) const;
};

// Which group each column belongs to.
struct ColumnGroups {
  uint64_t size = 0;         // columns of a group; column k is in group k / size unless `of` says otherwise
  std::vector<uint32_t> of;  // where groups do not follow the order of columns: the group of each column
  std::vector<uint32_t> sorted;  // with `of`: the columns group by group, as PackedFormat::order has them;
                                 // empty where the groups are not of `size` columns each
};

// of: the group of every column, as files with activation order have it. Columns of a group keep their order.
ColumnGroups column_groups(uint64_t size, std::vector<uint32_t> of);

// A matrix whose codes have levels for groups of columns of one row.
class GroupedReader : public PackedReader {
 public:
  void read_rows(uint64_t first_row, uint64_t rows, std::span<float> out) const override;
  const PackedFormat* format() const override { return has_format_ ? &format_ : nullptr; }
  PackedRows packed_rows(uint64_t first_row, uint64_t rows) const override;

 protected:
  // meaning: zero_point or table. format.group and format.order are taken from the groups.
  GroupedReader(uint64_t columns, PackedFormat format, ColumnGroups groups);

  uint64_t columns() const { return columns_; }
  uint64_t group_size() const { return format_.group; }
  uint64_t groups() const { return (columns_ + format_.group - 1) / format_.group; }
  // out is [rows, columns], in the order of the matrix.
  virtual void read_codes(uint64_t first_row, uint64_t rows, std::span<uint8_t> out) const = 0;
  // Both are [rows, groups]; offsets are empty for a table.
  virtual void read_levels(uint64_t first_row, uint64_t rows, std::span<float> scales,
                           std::span<float> offsets) const = 0;

 private:
  uint64_t columns_;
  PackedFormat format_;
  std::vector<uint32_t> group_of_;  // empty: k / group
  bool has_format_;
};

// A matrix as importing sees it, and the tensors of the checkpoint that it takes the place of.
struct PackedTensor {
  std::string name;  // "X.weight"
  uint64_t rows = 0;
  uint64_t columns = 0;
  std::string_view type;                       // "GPTQ-4"; lives for the whole run
  std::vector<const CheckpointTensor*> parts;  // everything it is made of
  std::unique_ptr<PackedReader> reader;
};

}  // namespace tessera
