// Matrix products in the benchmark's forms of output.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands/bench/bench.h"

using namespace tessera;

namespace {

BenchReport report_of(const std::vector<std::string>& places) {
  BenchReport report;
  for (const std::string& place : places) {
    BenchProduct product;
    product.test = {BenchTest::Kind::product, 4, 0};
    product.place = place;
    product.speed.name = "qkv";
    product.speed.scheme = "w8a8";
    product.speed.shape = {48, 16, 4};
    product.speed.seconds = 1e-6;
    report.products.push_back(product);
  }
  return report;
}

std::string text_of(const BenchReport& report, const std::string& form) {
  return bench_text({&report, 1}, form);
}

}  // namespace

TEST_CASE("products of split layers are told apart by their place") {
  const BenchReport split = report_of({"cpu", "cuda"});
  for (const char* form : {"table", "csv", "md"}) {
    CHECK(text_of(split, form).find("cpu qkv") != std::string::npos);
    CHECK(text_of(split, form).find("cuda qkv") != std::string::npos);
    CHECK(text_of(report_of({""}), form).find("qkv") != std::string::npos);
    CHECK(text_of(report_of({""}), form).find("cpu") == std::string::npos);
  }
  const auto json = nlohmann::json::parse(text_of(split, "json"));
  CHECK(json["products"][0]["place"] == "cpu");
  CHECK(json["products"][1]["place"] == "cuda");
  CHECK(json["products"][1]["name"] == "qkv");
  CHECK(nlohmann::json::parse(text_of(report_of({""}), "json"))["products"][0]["place"].is_null());
}
