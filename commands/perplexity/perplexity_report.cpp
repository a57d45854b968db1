#include "commands/perplexity/perplexity_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "commands/report_table.h"

namespace tessera {

namespace {

using nlohmann::ordered_json;

std::string kv_text(const QualityRow& row) {
  if (row.kv_first_layers == 0 || row.kv_bits == 16) return fmt::format("{}", row.kv_bits);
  return fmt::format("{}, first {}: 16", row.kv_bits, row.kv_first_layers);
}

std::string mebibytes(uint64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / static_cast<double>(1 << 20));
}

// Four digits; without an exponent where that is still short.
int decimals_of(double value) { return std::max(3 - static_cast<int>(std::floor(std::log10(value))), 0); }
constexpr int kMostDecimals = 8;

std::string nats_text(double value) {
  if (value <= 0) return "0";
  const int decimals = decimals_of(value);
  return decimals > kMostDecimals ? fmt::format("{:.3e}", value) : fmt::format("{:.{}f}", value, decimals);
}

// The error to the same place.
std::string with_error(double value, double error) {
  if (value <= 0) return "0";
  const int decimals = decimals_of(value);
  return decimals > kMostDecimals ? fmt::format("{:.3e} ± {:.0e}", value, error)
                                  : fmt::format("{:.{}f} ± {:.{}f}", value, decimals, error, decimals);
}

std::string percent_text(double share) { return fmt::format("{:.2f}", share * 100); }

// Shortest text that reads back as the same number.
std::string exact(double value) { return fmt::format("{}", value); }

// ---- one model: lines ----

std::string model_lines(const QualityReport& report) {
  const QualityRow& model = report.models.front();
  const ModelQuality& quality = model.quality;
  std::string text = fmt::format("{}\nnats/token {:.5f} ± {:.5f}\nperplexity {:.4f} ± {:.4f}\n",
                                 report.description, quality.nats.mean(), quality.nats.standard_error(),
                                 quality.perplexity(), quality.perplexity_error());
  if (!report.reference || !quality.divergence) return text;
  const Divergence& divergence = *quality.divergence;
  const ModelQuality& reference = report.reference->quality;
  text += fmt::format("reference {} ({}, KV {} bits): perplexity {:.4f} ± {:.4f}, ratio {:.5f} ± {:.5f}\n",
                      report.reference->name, report.reference->scheme, kv_text(*report.reference),
                      reference.perplexity(), reference.perplexity_error(), divergence.ratio(),
                      divergence.ratio_error());
  text += fmt::format("KL divergence mean {}, median {}, 99 % {}, maximum {} nats/token\n",
                      with_error(divergence.kl().mean(), divergence.kl().standard_error()),
                      nats_text(divergence.kl_quantile(0.5)), nats_text(divergence.kl_quantile(0.99)),
                      nats_text(divergence.most_kl()));
  text += fmt::format("same top token {} ± {} %\n", percent_text(divergence.agreement()),
                      percent_text(divergence.agreement_error()));
  return text;
}

// ---- tables ----

std::vector<const QualityRow*> all_rows(const QualityReport& report) {
  std::vector<const QualityRow*> rows;
  if (report.reference) rows.push_back(&*report.reference);
  for (const QualityRow& row : report.models) rows.push_back(&row);
  return rows;
}

void add_divergence_titles(ReportTable& table) {
  for (const char* title : {"mean KL", "median", "99 %", "top-1 %"}) table.columns.push_back({title});
}

void add_divergence(std::vector<std::string>& cells, const Divergence& divergence) {
  cells.push_back(with_error(divergence.kl().mean(), divergence.kl().standard_error()));
  cells.push_back(nats_text(divergence.kl_quantile(0.5)));
  cells.push_back(nats_text(divergence.kl_quantile(0.99)));
  cells.push_back(percent_text(divergence.agreement()));
}

ReportTable quality_table(const QualityReport& report) {
  ReportTable table{
      {{"model", true}, {"scheme", true}, {"KV"}, {"size MiB"}, {"bits/weight"}, {"perplexity"}}, {}};
  if (report.reference) {
    add_divergence_titles(table);
    table.columns.push_back({"ratio"});
  }
  for (const QualityRow* row : all_rows(report)) {
    const ModelQuality& quality = row->quality;
    std::vector<std::string> cells = {
        row->name,
        row->scheme,
        kv_text(*row),
        mebibytes(row->file_bytes),
        fmt::format("{:.3f}", row->bits_per_weight),
        fmt::format("{:.4f} ± {:.4f}", quality.perplexity(), quality.perplexity_error())};
    if (quality.divergence) {
      add_divergence(cells, *quality.divergence);
      cells.push_back(
          fmt::format("{:.5f} ± {:.5f}", quality.divergence->ratio(), quality.divergence->ratio_error()));
    } else if (report.reference) {
      cells.push_back("reference");
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

ReportTable exact_quality_table(const QualityReport& report) {
  ReportTable table;
  for (const char* title : {"name",
                            "file",
                            "scheme",
                            "kv",
                            "kv_first_layers",
                            "file_bytes",
                            "weight_bytes",
                            "bits_per_weight",
                            "tokens",
                            "nats",
                            "nats_error",
                            "perplexity",
                            "perplexity_error",
                            "reference",
                            "mean_kl",
                            "mean_kl_error",
                            "median_kl",
                            "kl_99",
                            "max_kl",
                            "top1_agreement",
                            "top1_agreement_error",
                            "ratio",
                            "ratio_error"}) {
    table.columns.push_back({title});
  }
  for (const QualityRow* row : all_rows(report)) {
    const ModelQuality& quality = row->quality;
    std::vector<std::string> cells = {row->name,
                                      row->file,
                                      row->scheme,
                                      fmt::format("{}", row->kv_bits),
                                      fmt::format("{}", row->kv_first_layers),
                                      fmt::format("{}", row->file_bytes),
                                      fmt::format("{}", row->weight_bytes),
                                      exact(row->bits_per_weight),
                                      fmt::format("{}", quality.nats.count()),
                                      exact(quality.nats.mean()),
                                      exact(quality.nats.standard_error()),
                                      exact(quality.perplexity()),
                                      exact(quality.perplexity_error()),
                                      report.reference && row == &*report.reference ? "true" : "false"};
    if (quality.divergence) {
      const Divergence& divergence = *quality.divergence;
      for (const double value :
           {divergence.kl().mean(), divergence.kl().standard_error(), divergence.kl_quantile(0.5),
            divergence.kl_quantile(0.99), divergence.most_kl(), divergence.agreement(),
            divergence.agreement_error(), divergence.ratio(), divergence.ratio_error()}) {
        cells.push_back(exact(value));
      }
    }
    cells.resize(table.columns.size());
    table.rows.push_back(std::move(cells));
  }
  return table;
}

ReportTable layer_table(const LayerReport& report) {
  ReportTable table{{{"quantized alone", true}, {"scheme", true}, {"size MiB"}, {"bits/weight"}}, {}};
  add_divergence_titles(table);
  table.columns.push_back({"share %"});
  const auto add = [&](const std::string& name, const std::string& scheme, uint64_t bytes, double bits,
                       const ModelQuality& quality, const std::string& share) {
    std::vector<std::string> cells = {name, scheme, mebibytes(bytes), fmt::format("{:.3f}", bits)};
    add_divergence(cells, *quality.divergence);
    cells.push_back(share);
    table.rows.push_back(std::move(cells));
  };
  for (const PartCost& part : report.parts) {
    add(part.name, part.scheme, part.weight_bytes, part.bits_per_weight, part.quality,
        fmt::format("{:.1f}", part.share * 100));
  }
  const QualityRow& whole = report.whole.models.front();
  add("all of it", whole.scheme, whole.weight_bytes, whole.bits_per_weight, whole.quality, "");
  return table;
}

ReportTable exact_layer_table(const LayerReport& report) {
  ReportTable table;
  for (const char* title :
       {"name", "scheme", "weight_bytes", "bits_per_weight", "mean_kl", "mean_kl_error", "median_kl", "kl_99",
        "max_kl", "top1_agreement", "top1_agreement_error", "share"}) {
    table.columns.push_back({title});
  }
  const auto add = [&](const std::string& name, const std::string& scheme, uint64_t bytes, double bits,
                       const ModelQuality& quality, const std::string& share) {
    const Divergence& divergence = *quality.divergence;
    table.rows.push_back({name, scheme, fmt::format("{}", bytes), exact(bits), exact(divergence.kl().mean()),
                          exact(divergence.kl().standard_error()), exact(divergence.kl_quantile(0.5)),
                          exact(divergence.kl_quantile(0.99)), exact(divergence.most_kl()),
                          exact(divergence.agreement()), exact(divergence.agreement_error()), share});
  };
  for (const PartCost& part : report.parts) {
    add(part.name, part.scheme, part.weight_bytes, part.bits_per_weight, part.quality, exact(part.share));
  }
  const QualityRow& whole = report.whole.models.front();
  add("all", whole.scheme, whole.weight_bytes, whole.bits_per_weight, whole.quality, "");
  return table;
}

// ---- JSON ----

void put_divergence(ordered_json& json, const ModelQuality& quality) {
  if (!quality.divergence) return;
  const Divergence& divergence = *quality.divergence;
  json["mean_kl"] = divergence.kl().mean();
  json["mean_kl_error"] = divergence.kl().standard_error();
  json["median_kl"] = divergence.kl_quantile(0.5);
  json["kl_99"] = divergence.kl_quantile(0.99);
  json["max_kl"] = divergence.most_kl();
  json["top1_agreement"] = divergence.agreement();
  json["top1_agreement_error"] = divergence.agreement_error();
  json["ratio"] = divergence.ratio();
  json["ratio_error"] = divergence.ratio_error();
}

ordered_json row_json(const QualityRow& row) {
  ordered_json json = {{"name", row.name},
                       {"file", row.file},
                       {"scheme", row.scheme},
                       {"kv", row.kv_bits},
                       {"kv_first_layers", row.kv_first_layers},
                       {"file_bytes", row.file_bytes},
                       {"weight_bytes", row.weight_bytes},
                       {"bits_per_weight", row.bits_per_weight},
                       {"tokens", row.quality.nats.count()},
                       {"nats", row.quality.nats.mean()},
                       {"nats_error", row.quality.nats.standard_error()},
                       {"perplexity", row.quality.perplexity()},
                       {"perplexity_error", row.quality.perplexity_error()}};
  put_divergence(json, row.quality);
  return json;
}

ordered_json quality_json(const QualityReport& report) {
  ordered_json results = ordered_json::array();
  for (const QualityRow& row : report.models) results.push_back(row_json(row));
  return {{"text",
           {{"source", report.text},
            {"windows", report.windows},
            {"text_tokens", report.text_tokens},
            {"scored_tokens", report.scored_tokens},
            {"description", report.description}}},
          {"backend", report.backend},
          {"reference", report.reference ? row_json(*report.reference) : ordered_json(nullptr)},
          {"results", results}};
}

std::string layer_json(const LayerReport& report) {
  ordered_json json = quality_json(report.whole);
  ordered_json parts = ordered_json::array();
  for (const PartCost& part : report.parts) {
    ordered_json entry = {{"name", part.name},
                          {"scheme", part.scheme},
                          {"weight_bytes", part.weight_bytes},
                          {"bits_per_weight", part.bits_per_weight}};
    put_divergence(entry, part.quality);
    entry["share"] = part.share;
    parts.push_back(std::move(entry));
  }
  json["layers"] = std::move(parts);
  return json_report(json);
}

std::string headline(const QualityReport& report) {
  std::string text = report.description + "\n";
  if (report.reference) {
    text += fmt::format("KL divergence in nats/token from {} with KV {} bits\n", report.reference->name,
                        kv_text(*report.reference));
  }
  return text;
}

}  // namespace

std::string quality_text(const QualityReport& report, const std::string& form) {
  if (form == "json") return json_report(quality_json(report));
  if (form == "csv") return csv_table(exact_quality_table(report));
  if (form == "md") return headline(report) + "\n" + markdown_table(quality_table(report));
  if (report.models.size() == 1) return model_lines(report);
  return headline(report) + "\n" + aligned_table(quality_table(report));
}

std::string layer_text(const LayerReport& report, const std::string& form) {
  if (form == "json") return layer_json(report);
  if (form == "csv") return csv_table(exact_layer_table(report));
  const std::string head = headline(report.whole) + "each row: that part as in " +
                           report.whole.models.front().name + ", the rest as in the reference\n\n";
  return head + (form == "md" ? markdown_table(layer_table(report)) : aligned_table(layer_table(report)));
}

}  // namespace tessera
