#include "backends/cuda/uploaded_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "backends/cuda/panel_upload.h"
#include "backends/cuda/upload/repack.h"

namespace tessera::cuda {

namespace {

// Rows and columns are 32-bit numbers in kernels.
constexpr size_t kMostSide = std::numeric_limits<int32_t>::max() / 2;

std::optional<WeightFormat> format_of(Scheme scheme) {
  if (scheme == Scheme::f32) return WeightFormat::f32;
  if (scheme == Scheme::f16) return WeightFormat::f16;
  if (scheme == Scheme::bf16) return WeightFormat::bf16;
  if (scheme == Scheme::w8a8) return WeightFormat::w8a8;
  if (scheme == Scheme::w4a8) return WeightFormat::w4a8;
  if (scheme == Scheme::w4a8_g128) return WeightFormat::w4a8_g128;
  return std::nullopt;
}

size_t device_panel_bytes(WeightFormat format, size_t file_panel_bytes, size_t columns) {
  if (is_integer(format)) return file_panel_bytes;
  return layout::float_row_elements(columns) * tile::kPanelRows * (format == WeightFormat::f32 ? 4 : 2);
}

}  // namespace

Result<std::unique_ptr<UploadedWeight>> UploadedWeight::upload(Queue& queue, DeviceMemory& staging,
                                                               const StoredTensor& tensor) {
  using Outcome = Result<std::unique_ptr<UploadedWeight>>;
  const auto failure = [&](const std::string& why) {
    return Outcome::failure(fmt::format("tensor \"{}\": {}", tensor.name, why));
  };
  const std::optional<WeightFormat> format = format_of(tensor.scheme);
  const bool table = scheme_facts(tensor.scheme).group_scales();
  const bool is_vector = tensor.shape.size() == 1;
  const bool known_vector = tensor.scheme == Scheme::f32 || tensor.scheme == Scheme::u32;
  if (is_vector ? !known_vector : !format && !table)
    return failure(fmt::format("the cuda backend has no kernels for scheme {}", scheme_name(tensor.scheme)));
  const std::optional<uint64_t> bytes = stored_bytes(tensor.scheme, tensor.shape);
  if (!bytes || *bytes != tensor.bytes.size())
    return failure(fmt::format("expected {} bytes, found {}", bytes.value_or(0), tensor.bytes.size()));
  if (tensor.rows() > kMostSide || tensor.columns() > kMostSide)
    return failure(fmt::format("[{}, {}]: the cuda backend takes sides up to {}", tensor.rows(),
                               tensor.columns(), kMostSide));
  if (table) return upload_table(queue, staging, tensor);

  auto weight = std::make_unique<UploadedWeight>(tensor);
  const size_t panels = (tensor.rows() + tile::kPanelRows - 1) / tile::kPanelRows;
  const size_t file_panel = is_vector ? 0 : panel_bytes(tensor.scheme, tensor.columns());
  const size_t device_panel = is_vector ? 0 : device_panel_bytes(*format, file_panel, tensor.columns());
  // Scales and zero points; of a vector everything.
  const size_t tail = tensor.bytes.size() - panels * file_panel;
  auto memory = DeviceMemory::allocate(panels * device_panel + tail);
  if (!memory.ok()) return failure(memory.error());
  weight->memory_ = std::move(memory.value());
  const size_t after_panels = panels * device_panel;
  if (!is_vector) {
    const size_t columns = padded_columns(tensor.scheme, tensor.columns());
    MatrixView& view = weight->matrix_;
    view.format = *format;
    view.rows = static_cast<uint32_t>(tensor.rows());
    view.columns = static_cast<uint32_t>(is_integer(*format) ? columns : tensor.columns());
    view.codes = weight->memory_.view<const std::byte>();
    view.panel_bytes = device_panel;
    if (is_integer(*format)) view.scales = weight->memory_.view<const float>(after_panels);
    if (*format == WeightFormat::w4a8)
      view.zeros =
          weight->memory_.view<const uint8_t>(after_panels + panels * tile::kPanelRows * sizeof(float));
    RepackJob job;
    job.format = *format;
    job.columns = view.columns;
    job.file_panel_bytes = file_panel;
    job.device_panel_bytes = device_panel;
    const Global<std::byte> device = weight->memory_.view<std::byte>();
    const std::string fault =
        upload_panels(queue, staging, tensor.bytes.first(panels * file_panel), file_panel,
                      [&queue, &job, device](Global<const std::byte> file, size_t first, size_t count) {
                        RepackJob piece = job;
                        piece.file = file;
                        piece.device = device + first * job.device_panel_bytes;
                        piece.panels = static_cast<uint32_t>(count);
                        repack(queue, piece);
                      });
    if (!fault.empty()) return failure(fault);
  }
  queue.upload(weight->memory_.address() + after_panels, tensor.bytes.last(tail));
  const Status status = queue.finish();
  if (!status.ok()) return failure(status.error());
  weight->memory_.seal();
  return Outcome(std::move(weight));
}

}  // namespace tessera::cuda
