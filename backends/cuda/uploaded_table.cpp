// Uploads a matrix of a table scheme: its panels, rearranged on the device, and the table in the forms that
// kernels read.
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "backends/cuda/panel_upload.h"
#include "backends/cuda/upload/repack_tables.h"
#include "backends/cuda/uploaded_weight.h"
#include "gguf-like-format/float_types.h"

namespace tessera::cuda {

namespace {

void put_byte(uint32_t (&words)[4], uint32_t index, uint32_t byte) {
  words[index / 4] |= (byte & 255u) << (8 * (index % 4));
}

// table: f32[16] as stored; it is not read for schemes without one.
table_layout::Entries table_entries(const SchemeFacts& scheme, const std::byte* table) {
  table_layout::Entries entries{};
  for (uint32_t code = 0; code < 16; ++code) {
    float value = static_cast<float>(code);
    if (scheme.table) std::memcpy(&value, table + sizeof value * code, sizeof value);
    entries.values[code] = value;
    const float steps = scheme.table ? 127.0f * value : value;
    const float whole = std::fmin(std::fmax(std::nearbyint(steps), -127.0f), 127.0f);
    put_byte(entries.int8, code, static_cast<uint32_t>(static_cast<int32_t>(whole)));
    const uint16_t rounded = f32_to_bf16(value);
    put_byte(entries.bf16_low, code, rounded);
    put_byte(entries.bf16_high, code, static_cast<uint32_t>(rounded >> 8));
  }
  return entries;
}

}  // namespace

Result<std::unique_ptr<UploadedWeight>> UploadedWeight::upload_table(Queue& queue, DeviceMemory& staging,
                                                                     const StoredTensor& tensor) {
  using Outcome = Result<std::unique_ptr<UploadedWeight>>;
  const auto failure = [&](const std::string& why) {
    return Outcome::failure(fmt::format("tensor \"{}\": {}", tensor.name, why));
  };
  const SchemeFacts& scheme = scheme_facts(tensor.scheme);
  const size_t panels = (tensor.rows() + tile::kPanelRows - 1) / tile::kPanelRows;
  auto weight = std::make_unique<UploadedWeight>(tensor);
  RepackTableJob job;
  job.bits = scheme.bits;
  job.group = static_cast<uint32_t>(scheme.group);
  job.offsets = scheme.offset != GroupOffset::none;
  job.nested = scheme.kind == CodeKind::int4k;
  job.file_columns = static_cast<uint32_t>(padded_columns(tensor.scheme, tensor.columns()));
  job.device_columns = static_cast<uint32_t>(table_layout::device_columns(job.file_columns));
  job.file_panel_bytes = panel_bytes(tensor.scheme, tensor.columns());
  job.device_panel_bytes =
      job.nested ? table_layout::nested_panel_bytes(job.device_columns)
                 : table_layout::panel_bytes(job.bits, job.device_columns, job.group, job.offsets);
  const size_t entries_byte = panels * job.device_panel_bytes;
  auto memory = DeviceMemory::allocate(entries_byte + sizeof(table_layout::Entries));
  if (!memory.ok()) return failure(memory.error());
  weight->memory_ = std::move(memory.value());

  TableView& view = weight->table_;
  view.bits = job.bits;
  view.group = job.group;
  view.offset = scheme.offset;
  view.nested = job.nested;
  view.table = scheme.table;
  view.int8_activations = scheme.activations == ActivationType::int8;
  view.rows = static_cast<uint32_t>(tensor.rows());
  view.columns = job.device_columns;
  view.panels = weight->memory_.view<const std::byte>();
  view.panel_bytes = job.device_panel_bytes;
  view.entries = weight->memory_.view<const std::byte>(entries_byte);

  const size_t after_panels = panels * job.file_panel_bytes;
  const Global<std::byte> device = weight->memory_.view<std::byte>();
  const std::string fault =
      upload_panels(queue, staging, tensor.bytes.first(after_panels), job.file_panel_bytes,
                    [&queue, &job, device](Global<const std::byte> file, size_t first, size_t count) {
                      RepackTableJob piece = job;
                      piece.file = file;
                      piece.device = device + first * job.device_panel_bytes;
                      piece.panels = static_cast<uint32_t>(count);
                      repack_table(queue, piece);
                    });
  if (!fault.empty()) return failure(fault);
  const table_layout::Entries entries = table_entries(scheme, tensor.bytes.data() + after_panels);
  queue.upload(weight->memory_.address() + entries_byte, std::as_bytes(std::span(&entries, 1)));
  const Status status = queue.finish();
  if (!status.ok()) return failure(status.error());
  weight->memory_.seal();
  return Outcome(std::move(weight));
}

}  // namespace tessera::cuda
