#include "gguf-like-format/column_order.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>

#include "gguf-like-format/tensor_roles.h"

namespace tessera {

std::string column_order_fault(std::span<const std::byte> bytes) {
  const size_t columns = bytes.size() / sizeof(uint32_t);
  std::vector<bool> seen(columns, false);
  for (size_t i = 0; i < columns; ++i) {
    uint32_t column = 0;
    std::memcpy(&column, bytes.data() + i * sizeof column, sizeof column);
    if (column >= columns)
      return fmt::format("entry {}: expected a column below {}, found {}", i, columns, column);
    if (seen[column]) return fmt::format("entry {}: expected every column once, found {} again", i, column);
    seen[column] = true;
  }
  return {};
}

std::vector<std::string> matrices_in_order(std::string_view tensor) {
  std::vector<std::string> matrices;
  const size_t dot = tensor.rfind('.');
  if (dot == std::string_view::npos) return matrices;
  const RoleRow* order = find_role(tensor.substr(dot + 1), true);
  if (order == nullptr || order->kind != RoleKind::order) return matrices;
  for (const RoleRow& row : role_rows())
    if (order_role(row.role) == order->role)
      matrices.push_back(fmt::format("{}.{}", tensor.substr(0, dot), row.name));
  return matrices;
}

}  // namespace tessera
