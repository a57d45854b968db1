// The benchmark's results as a table, JSON, CSV or Markdown.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands/bench.h"
#include "commands/load_model.h"

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

std::string table_text(const BenchReport& report) {
  std::string text = headline(report);
  text += fmt::format("\n{:<14} {:>10} {:>10} {:>10} {:>14} {:>12}  {}\n", "test", "tokens/s", "low", "high",
                      "weights/token", "KV/token", "share of the limit");
  for (const BenchResult& result : report.results) {
    text += fmt::format("{:<14} {:>10.2f} {:>10.2f} {:>10.2f} {:>14} {:>12}  {}\n", result.test.name(),
                        result.tokens_per_second, result.low, result.high,
                        readable_bytes(static_cast<uint64_t>(result.bytes_per_token)),
                        readable_bytes(static_cast<uint64_t>(result.kv_bytes_per_token)), share_text(result));
  }
  for (const SkippedTest& skipped : report.skipped) {
    text += fmt::format("{:<14} skipped: {}\n", skipped.test.name(), skipped.reason);
  }
  return text;
}

std::string markdown_text(const BenchReport& report) {
  std::string text = headline(report);
  text +=
      "\n| test | tokens/s | low | high | weights/token | KV/token | share of the limit "
      "|\n|---|---|---|---|---|---|---|\n";
  for (const BenchResult& result : report.results) {
    text += fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} | {} | {} | {} |\n", result.test.name(),
                        result.tokens_per_second, result.low, result.high,
                        readable_bytes(static_cast<uint64_t>(result.bytes_per_token)),
                        readable_bytes(static_cast<uint64_t>(result.kv_bytes_per_token)), share_text(result));
  }
  for (const SkippedTest& skipped : report.skipped) {
    text += fmt::format("| {} | skipped: {} | | | | | |\n", skipped.test.name(), skipped.reason);
  }
  return text;
}

std::string csv_text(const BenchReport& report) {
  std::string text =
      "test,tokens_per_second,low,high,share,limit,bytes_per_token,kv_bytes_per_token,operations_per_token,"
      "read_gbps,"
      "int8_gops,skipped\n";
  for (const BenchResult& result : report.results) {
    text += fmt::format("{},{:.4f},{:.4f},{:.4f},{:.4f},{},{:.0f},{:.0f},{:.0f},{:.3f},{:.2f},\n",
                        result.test.name(), result.tokens_per_second, result.low, result.high, result.share,
                        limit_name(result), result.bytes_per_token, result.kv_bytes_per_token,
                        result.operations_per_token, result.limits.read_gbps, result.limits.int8_gops);
  }
  for (const SkippedTest& skipped : report.skipped) {
    std::string reason;
    for (const char c : skipped.reason) reason += c == '"' ? std::string("\"\"") : std::string(1, c);
    text += fmt::format("{},,,,,,,,,,,\"{}\"\n", skipped.test.name(), reason);
  }
  return text;
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
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string bench_text(const BenchReport& report, const std::string& form) {
  if (form == "json") return json_text(report);
  if (form == "csv") return csv_text(report);
  if (form == "md") return markdown_text(report);
  return table_text(report);
}

}  // namespace tessera
