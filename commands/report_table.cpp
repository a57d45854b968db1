#include "commands/report_table.h"

#include <algorithm>

namespace tessera {

namespace {

// Characters, not bytes: "±" is one.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, size_t width, bool left) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return left ? text + space : space + text;
}

std::vector<std::string> titles(const ReportTable& table) {
  std::vector<std::string> cells;
  for (const ReportColumn& column : table.columns) cells.push_back(column.title);
  return cells;
}

}  // namespace

std::string aligned_table(const ReportTable& table) {
  std::vector<size_t> widths;
  for (const ReportColumn& column : table.columns) widths.push_back(width_of(column.title));
  for (const std::vector<std::string>& row : table.rows) {
    const size_t cells = row.size() < widths.size() ? row.size() - 1 : widths.size();
    for (size_t i = 0; i < cells; ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool remark = row.size() < widths.size() && i + 1 == row.size();
      if (i > 0) text += "  ";
      text += remark ? row[i] : padded(row[i], widths[i], table.columns[i].is_text);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  add(titles(table));
  for (const std::vector<std::string>& row : table.rows) add(row);
  return text;
}

std::string markdown_table(const ReportTable& table) {
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < table.columns.size(); ++i) {
      text += "| ";
      for (const char c : i < row.size() ? row[i] : std::string())
        text += c == '|' ? "\\|" : std::string(1, c);
      text += ' ';
    }
    text += "|\n";
  };
  add(titles(table));
  for (const ReportColumn& column : table.columns) text += column.is_text ? "|---" : "|---:";
  text += "|\n";
  for (const std::vector<std::string>& row : table.rows) add(row);
  return text;
}

std::string csv_table(const ReportTable& table) {
  std::string text;
  const auto add = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < table.columns.size(); ++i) {
      if (i > 0) text += ',';
      const std::string& cell = i < row.size() ? row[i] : std::string();
      if (cell.find_first_of(",\"\r\n") == std::string::npos) {
        text += cell;
        continue;
      }
      text += '"';
      for (const char c : cell) text += c == '"' ? std::string("\"\"") : std::string(1, c);
      text += '"';
    }
    text += '\n';
  };
  add(titles(table));
  for (const std::vector<std::string>& row : table.rows) add(row);
  return text;
}

}  // namespace tessera
