// The benchmark's results as a table, JSON, CSV or Markdown.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "commands/bench/bench.h"
#include "commands/load_model.h"
#include "commands/report_table.h"
#include "engine/measure/sample_statistics.h"
#include "engine/readable_bytes.h"

namespace tessera {

namespace {

const char* limit_name(const BenchResult& result) { return result.memory_bound ? "read_gbps" : "int8_gops"; }

// "62.1 % of 51.3 GB/s"
std::string share_text(const BenchResult& result) {
  return result.memory_bound
             ? fmt::format("{:.1f} % of {:.1f} GB/s", result.share * 100, result.limits.read_gbps)
             : fmt::format("{:.1f} % of {:.0f} Gop/s", result.share * 100, result.limits.int8_gops);
}

std::string headline(std::span<const BenchReport> reports) {
  const BenchReport& first = reports.front();
  std::vector<double> reads;
  std::vector<double> peaks;
  std::string schemes;
  for (const BenchReport& report : reports) {
    reads.push_back(report.limits.read_gbps);
    peaks.push_back(report.limits.int8_gops);
    schemes += fmt::format("{}{} (weights {})", schemes.empty() ? "" : ", ", report.scheme,
                           readable_bytes(report.weight_bytes));
  }
  if (reports.size() == 1)
    schemes = fmt::format("{}, weights {}", first.scheme, readable_bytes(first.weight_bytes));
  return fmt::format("{} {}, KV {} bits\n{}: {}\nlimits: {:.1f} GB/s read, {:.0f} Gop/s int8\n", first.model,
                     schemes, first.kv_bits, first.processor, first.backend, median(reads), median(peaks));
}

// The reports' rows below each other, behind a column for the scheme where there are several.
template <class AddRows>
ReportTable joined(std::span<const BenchReport> reports, std::vector<ReportColumn> columns,
                   const AddRows& add_rows) {
  ReportTable table;
  if (reports.size() > 1) table.columns.push_back({"scheme", true});
  table.columns.insert(table.columns.end(), columns.begin(), columns.end());
  for (const BenchReport& report : reports) {
    std::vector<std::vector<std::string>> rows;
    add_rows(report, rows);
    for (std::vector<std::string>& row : rows) {
      if (reports.size() > 1) row.insert(row.begin(), report.scheme);
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

ReportTable table(std::span<const BenchReport> reports) {
  const std::vector<ReportColumn> columns = {{"test", true},
                                             {"tokens/s"},
                                             {"low"},
                                             {"high"},
                                             {"weights/token"},
                                             {"KV/token"},
                                             {"share of the limit", true}};
  return joined(reports, columns, [](const BenchReport& report, std::vector<std::vector<std::string>>& rows) {
    for (const BenchResult& result : report.results) {
      rows.push_back({result.test.name(), fmt::format("{:.2f}", result.tokens_per_second),
                      fmt::format("{:.2f}", result.low), fmt::format("{:.2f}", result.high),
                      readable_bytes(static_cast<uint64_t>(result.bytes_per_token)),
                      readable_bytes(static_cast<uint64_t>(result.kv_bytes_per_token)), share_text(result)});
    }
    for (const SkippedTest& skipped : report.skipped)
      rows.push_back({skipped.test.name(), "skipped: " + skipped.reason});
  });
}

// With its place in front where there are two.
std::string product_name(const BenchProduct& product) {
  return product.place.empty() ? product.speed.name : product.place + " " + product.speed.name;
}

// How many times as long the library takes.
std::string ratio_text(const BenchProduct& product, const std::optional<double>& library) {
  return library && product.speed.seconds > 0 ? fmt::format("{:.2f}", *library / product.speed.seconds) : "";
}

ReportTable product_table(std::span<const BenchReport> reports) {
  const std::vector<ReportColumn> columns = {
      {"test", true},    {"product", true}, {"rows"},
      {"columns"},       {"scheme", true},  {"microseconds"},
      {"GB/s"},          {"Gop/s"},         {"share of the limit", true},
      {"x library f16"}, {"x library int8"}};
  ReportTable table;
  table.columns = columns;
  for (const BenchReport& report : reports) {
    for (const BenchProduct& product : report.products) {
      const ProductSpeed& speed = product.speed;
      table.rows.push_back(
          {product.test.name(), product_name(product), fmt::format("{}", speed.shape.rows),
           fmt::format("{}", speed.shape.columns), speed.scheme, fmt::format("{:.2f}", speed.seconds * 1e6),
           fmt::format("{:.1f}", product.gbps), fmt::format("{:.0f}", product.gops),
           product.memory_bound
               ? fmt::format("{:.1f} % of {:.1f} GB/s", product.share * 100, product.limits.read_gbps)
               : fmt::format("{:.1f} % of {:.0f} Gop/s", product.share * 100, product.limits.int8_gops),
           ratio_text(product, speed.library_f16), ratio_text(product, speed.library_int8)});
    }
  }
  return table;
}

// Both tables below each other, those that have rows.
template <class Form>
std::string tables_text(std::span<const BenchReport> reports, const Form& form) {
  const ReportTable tests = table(reports);
  const ReportTable products = product_table(reports);
  std::string text = headline(reports);
  if (!tests.rows.empty()) text += "\n" + form(tests);
  if (!products.rows.empty()) text += "\n" + form(products);
  return text;
}

ReportTable exact_table(std::span<const BenchReport> reports) {
  std::vector<ReportColumn> columns;
  for (const char* title :
       {"test", "tokens_per_second", "low", "high", "share", "limit", "bytes_per_token", "kv_bytes_per_token",
        "operations_per_token", "read_gbps", "int8_gops", "skipped"}) {
    columns.push_back({title});
  }
  const size_t width = columns.size();
  return joined(reports, columns,
                [width](const BenchReport& report, std::vector<std::vector<std::string>>& rows) {
                  for (const BenchResult& result : report.results) {
                    rows.push_back({result.test.name(), fmt::format("{:.4f}", result.tokens_per_second),
                                    fmt::format("{:.4f}", result.low), fmt::format("{:.4f}", result.high),
                                    fmt::format("{:.4f}", result.share), limit_name(result),
                                    fmt::format("{:.0f}", result.bytes_per_token),
                                    fmt::format("{:.0f}", result.kv_bytes_per_token),
                                    fmt::format("{:.0f}", result.operations_per_token),
                                    fmt::format("{:.3f}", result.limits.read_gbps),
                                    fmt::format("{:.2f}", result.limits.int8_gops), ""});
                  }
                  for (const BenchProduct& product : report.products) {
                    const ProductSpeed& speed = product.speed;
                    const auto tokens = static_cast<double>(speed.shape.tokens);
                    const double rate = tokens / std::max(speed.seconds, 1e-9);
                    rows.push_back({product.test.name() + " " + product_name(product),
                                    fmt::format("{:.4f}", rate), "", "", fmt::format("{:.4f}", product.share),
                                    product.memory_bound ? "read_gbps" : "int8_gops",
                                    fmt::format("{:.0f}", static_cast<double>(speed.weight_bytes) / tokens),
                                    "0", fmt::format("{:.0f}", product.gops * 1e9 / rate),
                                    fmt::format("{:.3f}", product.limits.read_gbps),
                                    fmt::format("{:.2f}", product.limits.int8_gops), ""});
                  }
                  for (const SkippedTest& skipped : report.skipped) {
                    std::vector<std::string> row(width);
                    row.front() = skipped.test.name();
                    row.back() = skipped.reason;
                    rows.push_back(std::move(row));
                  }
                });
}

nlohmann::ordered_json json_of(const BenchReport& report) {
  using nlohmann::ordered_json;
  ordered_json results = ordered_json::array();
  for (const BenchResult& result : report.results) {
    results.push_back({{"test", result.test.name()},
                       {"tokens_per_second", result.tokens_per_second},
                       {"low", result.low},
                       {"high", result.high},
                       {"share", result.share},
                       {"limit", limit_name(result)},
                       {"bytes_per_token", result.bytes_per_token},
                       {"kv_bytes_per_token", result.kv_bytes_per_token},
                       {"operations_per_token", result.operations_per_token},
                       {"read_gbps", result.limits.read_gbps},
                       {"int8_gops", result.limits.int8_gops}});
  }
  ordered_json products = ordered_json::array();
  for (const BenchProduct& product : report.products) {
    const ProductSpeed& speed = product.speed;
    const auto seconds = [](const std::optional<double>& time) {
      return time ? ordered_json(*time * 1e6) : ordered_json(nullptr);
    };
    products.push_back(
        {{"test", product.test.name()},
         {"place", product.place.empty() ? ordered_json(nullptr) : ordered_json(product.place)},
         {"name", speed.name},
         {"rows", speed.shape.rows},
         {"columns", speed.shape.columns},
         {"tokens", speed.shape.tokens},
         {"scheme", speed.scheme},
         {"copies", speed.copies},
         {"weight_bytes", speed.weight_bytes},
         {"microseconds", speed.seconds * 1e6},
         {"gbps", product.gbps},
         {"gops", product.gops},
         {"share", product.share},
         {"limit", product.memory_bound ? "read_gbps" : "int8_gops"},
         {"library_f16_microseconds", seconds(speed.library_f16)},
         {"library_int8_microseconds", seconds(speed.library_int8)}});
  }
  ordered_json skipped = ordered_json::array();
  for (const SkippedTest& test : report.skipped) {
    skipped.push_back({{"test", test.test.name()}, {"reason", test.reason}});
  }
  return {{"machine",
           {{"processor", report.processor}, {"threads", report.threads}, {"backend", report.backend}}},
          {"limits", {{"read_gbps", report.limits.read_gbps}, {"int8_gops", report.limits.int8_gops}}},
          {"model",
           {{"name", report.model},
            {"scheme", report.scheme},
            {"kv", report.kv_bits},
            {"weight_bytes", report.weight_bytes}}},
          {"repetitions", report.repetitions},
          {"results", results},
          {"products", products},
          {"skipped", skipped}};
}

}  // namespace

std::string bench_text(std::span<const BenchReport> reports, const std::string& form) {
  if (form == "json") {
    if (reports.size() == 1) return json_report(json_of(reports.front()));
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const BenchReport& report : reports) all.push_back(json_of(report));
    return json_report(all);
  }
  if (form == "csv") return csv_table(exact_table(reports));
  if (form == "md") return tables_text(reports, markdown_table);
  return tables_text(reports, aligned_table);
}

}  // namespace tessera
