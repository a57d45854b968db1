// The benchmark's results as a table, JSON, CSV or Markdown.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands/bench.h"
#include "commands/load_model.h"
#include "commands/report_table.h"

namespace tessera {

namespace {

const char* limit_name(const BenchResult& result) { return result.memory_bound ? "read_gbps" : "int8_gops"; }

// "62.1 % of 51.3 GB/s"
std::string share_text(const BenchResult& result) {
  return result.memory_bound
             ? fmt::format("{:.1f} % of {:.1f} GB/s", result.share * 100, result.limits.read_gbps)
             : fmt::format("{:.1f} % of {:.0f} Gop/s", result.share * 100, result.limits.int8_gops);
}

std::string headline(const BenchReport& report) {
  return fmt::format("{} {}, weights {}, KV {} bits\n{}: {}\nlimits: {:.1f} GB/s read, {:.0f} Gop/s int8\n",
                     report.model, report.scheme, readable_bytes(report.weight_bytes), report.kv_bits,
                     report.processor, report.backend, report.limits.read_gbps, report.limits.int8_gops);
}

ReportTable table(const BenchReport& report) {
  ReportTable table{{{"test", true},
                     {"tokens/s"},
                     {"low"},
                     {"high"},
                     {"weights/token"},
                     {"KV/token"},
                     {"share of the limit", true}},
                    {}};
  for (const BenchResult& result : report.results) {
    table.rows.push_back({result.test.name(), fmt::format("{:.2f}", result.tokens_per_second),
                          fmt::format("{:.2f}", result.low), fmt::format("{:.2f}", result.high),
                          readable_bytes(static_cast<uint64_t>(result.bytes_per_token)),
                          readable_bytes(static_cast<uint64_t>(result.kv_bytes_per_token)),
                          share_text(result)});
  }
  for (const SkippedTest& skipped : report.skipped) {
    table.rows.push_back({skipped.test.name(), "skipped: " + skipped.reason});
  }
  return table;
}

ReportTable exact_table(const BenchReport& report) {
  ReportTable table;
  for (const char* title :
       {"test", "tokens_per_second", "low", "high", "share", "limit", "bytes_per_token", "kv_bytes_per_token",
        "operations_per_token", "read_gbps", "int8_gops", "skipped"}) {
    table.columns.push_back({title});
  }
  for (const BenchResult& result : report.results) {
    table.rows.push_back(
        {result.test.name(), fmt::format("{:.4f}", result.tokens_per_second),
         fmt::format("{:.4f}", result.low), fmt::format("{:.4f}", result.high),
         fmt::format("{:.4f}", result.share), limit_name(result),
         fmt::format("{:.0f}", result.bytes_per_token), fmt::format("{:.0f}", result.kv_bytes_per_token),
         fmt::format("{:.0f}", result.operations_per_token), fmt::format("{:.3f}", result.limits.read_gbps),
         fmt::format("{:.2f}", result.limits.int8_gops), ""});
  }
  for (const SkippedTest& skipped : report.skipped) {
    std::vector<std::string> row(table.columns.size());
    row.front() = skipped.test.name();
    row.back() = skipped.reason;
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string json_text(const BenchReport& report) {
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
  ordered_json skipped = ordered_json::array();
  for (const SkippedTest& test : report.skipped) {
    skipped.push_back({{"test", test.test.name()}, {"reason", test.reason}});
  }
  const ordered_json json = {
      {"machine",
       {{"processor", report.processor}, {"threads", report.threads}, {"backend", report.backend}}},
      {"limits", {{"read_gbps", report.limits.read_gbps}, {"int8_gops", report.limits.int8_gops}}},
      {"model",
       {{"name", report.model},
        {"scheme", report.scheme},
        {"kv", report.kv_bits},
        {"weight_bytes", report.weight_bytes}}},
      {"repetitions", report.repetitions},
      {"results", results},
      {"skipped", skipped}};
  return json_report(json);
}

}  // namespace

std::string bench_text(const BenchReport& report, const std::string& form) {
  if (form == "json") return json_text(report);
  if (form == "csv") return csv_table(exact_table(report));
  if (form == "md") return headline(report) + "\n" + markdown_table(table(report));
  return headline(report) + "\n" + aligned_table(table(report));
}

}  // namespace tessera
