// A table of figures in the forms that commands print: aligned text, Markdown, CSV.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera {

struct ReportColumn {
  std::string title;
  bool is_text = false;  // aligned to the left
};

struct ReportTable {
  std::vector<ReportColumn> columns;
  // A row with fewer cells than columns ends in a remark of any length, which widens no column.
  std::vector<std::vector<std::string>> rows;
};

// One line of titles, then one per row, columns two spaces apart.
std::string aligned_table(const ReportTable& table);
std::string markdown_table(const ReportTable& table);
// Titles and cells quoted where they need it. Rows end in \n.
std::string csv_table(const ReportTable& table);

// JSON text of the value's dump: invalid UTF-8 is replaced, two spaces of indentation, a newline at the end.
template <class Json>
std::string json_report(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tessera
