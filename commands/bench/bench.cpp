// The local benchmark: prompt and generation speed, each read against limits measured around it.
#include "commands/bench/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "commands/bench/bench_runs.h"
#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/hub_model.h"
#include "commands/load_model.h"
#include "commands/terminal/terminal.h"
#include "commands/verbs.h"
#include "engine/measure/random_model.h"
#include "engine/model.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera {

namespace {

constexpr uint64_t kWeightSeed = 20240611;

}  // namespace

int run_bench(const Arguments& arguments) {
  SessionOptions options = session_options(arguments);
  const std::vector<BenchTest> tests = parse_bench_tests(
      arguments.text("tests").value_or("pp128,pp512,pp2048,tg128,tg128@d4096,tg128@d16384"));
  const size_t repetitions = static_cast<size_t>(arguments.integer("repetitions", 1, 1000).value_or(3));
  const std::string form = arguments.choice("output");
  const auto shape = arguments.text("shape");
  if (shape && (arguments.has("model") || arguments.has("hf-repo")))
    throw UsageError(fmt::format("{} and --shape: expected one of them, found both",
                                 arguments.has("model") ? "-m" : "-hf"));
  if (arguments.has("scheme") && !shape)
    throw UsageError("--scheme: needs --shape; a file has its own scheme");
  std::vector<std::string> schemes = arguments.choices("scheme");
  if (schemes.empty()) schemes.push_back(arguments.choice("scheme"));
  if (schemes.size() > 1 && arguments.has("plot"))
    throw UsageError("--plot: expected one --scheme, found several");
  for (const Option& option : arguments.verb().options) {
    if (is_for_answers(option) && arguments.has(option.name))
      throw UsageError(fmt::format("--{}: has no meaning with --bench", option.name));
  }
  if (shape && arguments.has("cache-size"))
    throw UsageError("--cache-size: has no meaning with --shape, whose weights are made in memory");
  if (shape && arguments.has("no-mmap"))
    throw UsageError("--no-mmap: has no meaning with --shape, whose weights are made in memory");
  if (shape) {
    const std::vector<std::string> shapes = random_model_shapes();
    if (std::find(shapes.begin(), shapes.end(), *shape) == shapes.end()) {
      throw UsageError(
          fmt::format("--shape: expected one of {}, found '{}'", fmt::join(shapes, ", "), *shape));
    }
  }

  std::optional<TemporaryFile> plot;
  if (const auto path = arguments.text("plot"))
    plot.emplace(*path);  // before the work: it may not be writable
  std::vector<BenchReport> reports;
  if (shape) {
    for (const std::string& scheme : schemes) {
      say(fmt::format("making random {} weights in the shape of {}", scheme, *shape), Style::dim);
      const RandomModel random(*shape, *parse_scheme(scheme), options.threads, kWeightSeed);
      const Model model = Model::from_memory(random.bytes());
      if (arguments.has("mlock")) lock_pages(model.file());
      reports.push_back(run_bench_tests(model, options, repetitions, tests));
    }
  } else {
    const Model model = open_model(chosen_model(arguments), arguments);
    reports.push_back(run_bench_tests(model, options, repetitions, tests));
  }
  write_stdout(bench_text(reports, form));
  if (plot) write_text(*plot, roofline_svg(reports.front()));
  if (std::all_of(reports.begin(), reports.end(), [](const BenchReport& report) {
        return report.results.empty() && report.products.empty();
      }))
    throw std::runtime_error("no test could be run");
  return kExitDone;
}

}  // namespace tessera
