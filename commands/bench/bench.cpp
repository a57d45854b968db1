// The local benchmark: prompt and generation speed, each read against limits measured around it.
#include "commands/bench/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <random>

#include "commands/commands.h"
#include "commands/load_model.h"
#include "commands/terminal.h"
#include "commands/text_file.h"
#include "engine/backends.h"
#include "engine/measure/random_model.h"
#include "engine/measure/sample_statistics.h"
#include "engine/model.h"
#include "engine/session.h"
#include "gguf-like-format/temporary_file.h"

namespace tessera {

namespace {

constexpr size_t kBatchTokens = 32;
constexpr size_t kAttentionTokens = 16;
constexpr size_t kMostTokens = size_t{1} << 24;
constexpr size_t kMostProductTokens = 65536;
constexpr uint64_t kRandomSeed = 20240611;

BenchTest parse_test(const std::string& text) {
  const auto number = [&](std::string_view digits, uint64_t least, uint64_t most) {
    return static_cast<size_t>(parse_integer(fmt::format("--tests: '{}'", text), digits, least, most));
  };
  const std::string_view word = text;
  if (word.substr(0, 2) == "pp") return {BenchTest::Kind::prompt, number(word.substr(2), 1, kMostTokens), 0};
  if (word.substr(0, 5) == "batch") return {BenchTest::Kind::batch, number(word.substr(5), 1, 4096), 0};
  if (word.substr(0, 6) == "attn@d")
    return {BenchTest::Kind::attention, kAttentionTokens, number(word.substr(6), 1, kMostTokens)};
  if (word.substr(0, 2) == "mm")
    return {BenchTest::Kind::product, number(word.substr(2), 1, kMostProductTokens), 0};
  if (word.substr(0, 2) == "tg") {
    const size_t at = word.find("@d");
    const size_t count = number(word.substr(2, at == std::string_view::npos ? at : at - 2), 1, kMostTokens);
    return {BenchTest::Kind::generate, count,
            at == std::string_view::npos ? 0 : number(word.substr(at + 2), 0, kMostTokens)};
  }
  throw UsageError(fmt::format(
      "--tests: expected ppN, tgN, tgN@dDEPTH, attn@dDEPTH, batchN or mmN separated by commas, found '{}'",
      text));
}

// Multiply-adds of the linear layers, counted as two operations each.
struct LinearWork {
  double every_token = 0;   // layers that run for every token
  double every_output = 0;  // layers that run only where logits are wanted: the head
};

LinearWork linear_work(const Graph& graph) {
  LinearWork work;
  for (const Op& op : graph.ops) {
    const auto* linear = std::get_if<Linear>(&op.kind);
    if (linear == nullptr) continue;
    double weights = 0;
    for (const LinearPart& part : linear->parts) {
      const Weight& weight = graph.weights[part.weight];
      weights += static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
    }
    const bool outputs = graph.tensors[op.outputs.front()].rows == RowExtent::outputs;
    (outputs ? work.every_output : work.every_token) += 2 * weights;
  }
  return work;
}

// Operations of attention for one token and one key it sees.
double attention_work(const Graph& graph) {
  double work = 0;
  for (const Op& op : graph.ops) {
    if (const auto* attention = std::get_if<Attention>(&op.kind))
      work += 4.0 * static_cast<double>(attention->query_heads * attention->head_dim);
  }
  return work;
}

// Tokens of KV cache a test needs, in whole pages.
size_t context_needed(const BenchTest& test) {
  const auto pages = [](size_t tokens) {
    return (tokens + kKvPageTokens - 1) / kKvPageTokens * kKvPageTokens;
  };
  if (test.kind == BenchTest::Kind::batch) return test.count * pages(kBatchTokens);
  if (test.kind == BenchTest::Kind::product) return kKvPageTokens;
  return pages(test.depth + test.count);
}

class Bench {
 public:
  Bench(const Model& model, const SessionOptions& options, size_t repetitions)
      : model_(model),
        options_(options),
        repetitions_(repetitions),
        work_(linear_work(model.graph())),
        generator_(kRandomSeed) {}

  BenchReport run(const std::vector<BenchTest>& tests) {
    BenchReport report;
    report.processor = processor_name();
    report.threads = threads_used(options_.threads);
    report.model = one_line(model_.header().name);
    report.scheme = one_line(model_.header().quantization.scheme);
    report.weight_bytes = model_.weight_bytes();
    report.repetitions = repetitions_;
    std::vector<BenchTest> left;
    for (const BenchTest& test : tests) {
      const std::string reason = reason_to_skip(test);
      if (reason.empty()) {
        left.push_back(test);
      } else {
        skip(report, test, reason);
      }
    }
    std::unique_ptr<Session> session = open(report, left);
    if (session == nullptr) return report;
    say_memory(session->memory());
    report.backend = session->backend_description();
    report.kv_bits = session->memory().kv_bits;
    limits_now(*session);  // the first one finds cold caches and a sleeping clock
    read_gbps_.clear();
    int8_gops_.clear();
    for (const BenchTest& test : left) {
      if (test.kind == BenchTest::Kind::attention && session->memory().places.size() > 1) {
        skip(report, test, "layers are split: the KV cache lies in two memories, with limits of their own");
        continue;
      }
      try {
        if (test.kind == BenchTest::Kind::product) {
          for (size_t place = 0; place < session->memory().places.size(); ++place)
            measure_products(report, *session, test, place);
        } else {
          report.results.push_back(measure(*session, test));
        }
      } catch (const std::runtime_error& error) {
        for (const SequenceId sequence : sequences_) session->release(sequence);
        sequences_.clear();
        skip(report, test, error.what());
      }
    }
    report.limits = {median(read_gbps_), median(int8_gops_)};
    return report;
  }

 private:
  // One session for all tests, so that weights are uploaded once. Without enough memory the test that needs
  // the longest context is left out, until the others fit; null when none is left.
  std::unique_ptr<Session> open(BenchReport& report, std::vector<BenchTest>& tests) {
    while (!tests.empty()) {
      SessionOptions options = options_;
      options.context = 0;
      options.max_outputs = 1;
      for (const BenchTest& test : tests) {
        options.context = std::max(options.context, context_needed(test));
        if (test.kind == BenchTest::Kind::batch)
          options.max_outputs = std::max(options.max_outputs, test.count);
      }
      options.batch = std::max(options.batch, options.max_outputs);
      // Layers are split between devices only where that is asked for.
      if (find_backend(options.backend).on_device && !options.gpu_layers)
        options.gpu_layers = model_.hyperparameters().layers;
      try {
        return std::make_unique<Session>(model_, options);
      } catch (const std::runtime_error& error) {
        const auto largest = std::max_element(tests.begin(), tests.end(), [](const auto& a, const auto& b) {
          return context_needed(a) < context_needed(b);
        });
        skip(report, *largest, error.what());
        tests.erase(largest);
      }
    }
    return nullptr;
  }

  void measure_products(BenchReport& report, Session& session, const BenchTest& test, size_t place) {
    ProgressBar bar(test.name());
    const std::vector<Place>& places = session.memory().places;
    const SpeedLimits before = limits_now(session, place);
    std::vector<ProductSpeed> speeds = tessera::measure_products(session.runtime(), place, test.count);
    const SpeedLimits after = limits_now(session, place);
    for (ProductSpeed& speed : speeds) {
      if (speed.seconds <= 0) {
        skip(report, test, fmt::format("{}: too quick to be told from the rest of a run", speed.name));
        continue;
      }
      BenchProduct product;
      product.test = test;
      if (places.size() > 1) product.place = places[place].name;
      product.limits = {(before.read_gbps + after.read_gbps) / 2, (before.int8_gops + after.int8_gops) / 2};
      const ProductShape& shape = speed.shape;
      product.gbps = static_cast<double>(speed.weight_bytes) / speed.seconds * 1e-9;
      product.gops = 2e-9 * static_cast<double>(shape.rows) * static_cast<double>(shape.columns) *
                     static_cast<double>(shape.tokens) / speed.seconds;
      const double of_memory = product.gbps / product.limits.read_gbps;
      const double of_arithmetic = product.gops / product.limits.int8_gops;
      product.memory_bound = of_memory >= of_arithmetic;
      product.share = std::max(of_memory, of_arithmetic);
      product.speed = std::move(speed);
      report.products.push_back(std::move(product));
    }
  }

  // A run whose results nobody looks at: where the backend can rank them, the best token of each row is all
  // that is copied back, as in a greedy reply.
  static void run(Session& session, std::span<const SequenceInput> inputs) {
    if (session.gives_best(1)) {
      session.run_best(inputs, 1);
    } else {
      session.run(inputs);
    }
  }

  std::string reason_to_skip(const BenchTest& test) const {
    if (test.kind == BenchTest::Kind::product) return "";
    const size_t own = test.kind == BenchTest::Kind::batch ? kBatchTokens : test.depth + test.count;
    if (own > model_.hyperparameters().context) {
      return fmt::format("needs {} tokens of context, the model has {}", own,
                         model_.hyperparameters().context);
    }
    const size_t all = test.kind == BenchTest::Kind::batch ? kBatchTokens * test.count : own;
    if (options_.context != 0 && all > options_.context) {
      return fmt::format("needs {} tokens of context, --ctx gives {}", all, options_.context);
    }
    return "";
  }

  static void skip(BenchReport& report, const BenchTest& test, const std::string& reason) {
    say(fmt::format("{} skipped: {}", test.name(), reason), Style::warning);
    report.skipped.push_back({test, reason});
  }

  uint32_t random_token() {
    return static_cast<uint32_t>(generator_() % static_cast<uint64_t>(model_.hyperparameters().vocabulary));
  }

  std::vector<uint32_t> random_tokens(size_t count) {
    std::vector<uint32_t> tokens(count);
    for (uint32_t& token : tokens) token = random_token();
    return tokens;
  }

  // Those of the first place are the report's.
  SpeedLimits limits_now(Session& session, size_t place = 0) {
    const SpeedLimits limits = measure_limits(session.runtime(), place, options_.threads);
    if (place > 0) return limits;
    read_gbps_.push_back(limits.read_gbps);
    int8_gops_.push_back(limits.int8_gops);
    return limits;
  }

  BenchResult measure(Session& session, const BenchTest& test) {
    BenchResult result;
    result.test = test;
    const auto weight_bytes = static_cast<double>(model_.weight_bytes_per_token());
    const double kv_bytes =
        static_cast<double>(session.memory().kv_bytes) / static_cast<double>(session.memory().context);
    const auto count = static_cast<double>(test.count);
    const auto batch = static_cast<double>(std::min(test.count, options_.batch));
    switch (test.kind) {
      case BenchTest::Kind::prompt:
        result.bytes_per_token = weight_bytes / batch;  // weights are read once per run
        for (size_t end = 0; end < test.count;) {       // every run reads all of the cache up to its end once
          end = std::min(end + options_.batch, test.count);
          result.kv_bytes_per_token += kv_bytes * static_cast<double>(end) / count;
        }
        result.operations_per_token = work_.every_token + work_.every_output / count;
        break;
      case BenchTest::Kind::generate:
        result.bytes_per_token = weight_bytes;
        result.kv_bytes_per_token = kv_bytes * (static_cast<double>(test.depth) + count / 2);
        result.operations_per_token = work_.every_token + work_.every_output;
        break;
      case BenchTest::Kind::batch:
        result.bytes_per_token = weight_bytes / count;
        result.kv_bytes_per_token = kv_bytes * static_cast<double>(kBatchTokens) / 2;
        result.operations_per_token = work_.every_token + work_.every_output;
        break;
      case BenchTest::Kind::attention:
        result.kv_bytes_per_token = kv_bytes * (static_cast<double>(test.depth) + count / 2);
        result.operations_per_token =
            attention_work(model_.graph()) * (static_cast<double>(test.depth) + count / 2);
        break;
      case BenchTest::Kind::product:
        break;
    }
    const double bytes =
        test.kind == BenchTest::Kind::attention ? result.kv_bytes_per_token : result.bytes_per_token;

    const std::function<double()> once = prepare(session, test);
    std::vector<double> speeds, shares_of_memory, shares_of_arithmetic, reads, peaks;
    ProgressBar bar(test.name());
    once();  // pages of weights come in, clocks rise; not counted
    SpeedLimits before = limits_now(session);
    for (size_t i = 0; i < repetitions_; ++i) {
      bar.update(i + 1, repetitions_ + 1);
      const double speed = once();
      const SpeedLimits after = limits_now(session);
      const SpeedLimits around = {(before.read_gbps + after.read_gbps) / 2,
                                  (before.int8_gops + after.int8_gops) / 2};
      before = after;
      speeds.push_back(speed);
      reads.push_back(around.read_gbps);
      peaks.push_back(around.int8_gops);
      shares_of_memory.push_back(speed * bytes / (around.read_gbps * 1e9));
      shares_of_arithmetic.push_back(speed * result.operations_per_token / (around.int8_gops * 1e9));
    }
    for (const SequenceId sequence : sequences_) session.release(sequence);
    sequences_.clear();
    result.tokens_per_second = median(speeds);
    result.low = *std::min_element(speeds.begin(), speeds.end());
    result.high = *std::max_element(speeds.begin(), speeds.end());
    result.limits = {median(reads), median(peaks)};
    const double of_memory = median(shares_of_memory);
    const double of_arithmetic = median(shares_of_arithmetic);
    // Prompts are read against arithmetic and generation against memory; a batch against what binds it more.
    result.memory_bound = test.kind == BenchTest::Kind::generate || test.kind == BenchTest::Kind::attention ||
                          (test.kind == BenchTest::Kind::batch && of_memory >= of_arithmetic);
    result.share = result.memory_bound ? of_memory : of_arithmetic;
    return result;
  }

  // One repetition of a test, which returns its tokens per second. Tokens are random and drawn beforehand:
  // choosing them is not part of what is measured.
  std::function<double()> prepare(Session& session, const BenchTest& test) {
    if (test.kind == BenchTest::Kind::batch) {
      for (size_t i = 0; i < test.count; ++i) sequences_.push_back(session.create_sequence());
      return [&session, sequences = sequences_, tokens = random_tokens(test.count * kBatchTokens)] {
        for (const SequenceId sequence : sequences) session.truncate(sequence, 0);
        return timed(tokens.size(), [&] {
          for (size_t step = 0; step < kBatchTokens; ++step) {
            std::vector<SequenceInput> inputs;
            for (size_t i = 0; i < sequences.size(); ++i) {
              inputs.push_back({sequences[i], {&tokens[step * sequences.size() + i], 1}, LogitRows::last});
            }
            run(session, inputs);
          }
        });
      };
    }
    if (test.kind == BenchTest::Kind::attention && !measures_ops(session.runtime())) {
      return [&session, position = test.depth + test.count / 2] {
        return 1 / std::max(measure_attention(session, position), 1e-9);
      };
    }
    const SequenceId sequence = session.create_sequence();
    sequences_.push_back(sequence);
    if (test.kind == BenchTest::Kind::prompt) {
      return [&session, sequence, batch = options_.batch, tokens = random_tokens(test.count)] {
        session.truncate(sequence, 0);
        return timed(tokens.size(), [&] {
          // In pieces of the batch that was asked for: a session that other tests share may take more at
          // once.
          for (size_t done = 0; done < tokens.size();) {
            const size_t count = std::min(batch, tokens.size() - done);
            done += count;
            const SequenceInput input{sequence, std::span(tokens).subspan(done - count, count),
                                      done == tokens.size() ? LogitRows::last : LogitRows::none};
            run(session, {&input, 1});
          }
        });
      };
    }
    const std::vector<uint32_t> before = random_tokens(test.depth);
    ProgressBar bar(fmt::format("{}: filling the context", test.name()));
    for (size_t done = 0; done < before.size();) {
      const size_t count = std::min(options_.batch, before.size() - done);
      const SequenceInput input{sequence, std::span(before).subspan(done, count), LogitRows::none};
      run(session, {&input, 1});
      done += count;
      bar.update(done, before.size());
    }
    return [&session, sequence, test, tokens = random_tokens(test.count)] {
      session.truncate(sequence, test.depth);
      const double attention_before = op_seconds(session.runtime(), "attention");
      const double speed = timed(tokens.size(), [&] {
        for (const uint32_t& token : tokens) {
          const SequenceInput input{sequence, {&token, 1}, LogitRows::last};
          run(session, {&input, 1});
        }
      });
      if (test.kind == BenchTest::Kind::generate) return speed;
      return static_cast<double>(tokens.size()) /
             (op_seconds(session.runtime(), "attention") - attention_before);
    };
  }

  template <class Work>
  static double timed(size_t tokens, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return static_cast<double>(tokens) /
           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  const Model& model_;
  SessionOptions options_;
  size_t repetitions_;
  LinearWork work_;
  std::mt19937_64 generator_;
  std::vector<SequenceId> sequences_;  // of the test that runs
  std::vector<double> read_gbps_;
  std::vector<double> int8_gops_;
};

}  // namespace

std::string BenchTest::name() const {
  switch (kind) {
    case Kind::prompt:
      return fmt::format("pp{}", count);
    case Kind::batch:
      return fmt::format("batch{}", count);
    case Kind::attention:
      return fmt::format("attn@d{}", depth);
    case Kind::product:
      return fmt::format("mm{}", count);
    case Kind::generate:
      break;
  }
  return depth == 0 ? fmt::format("tg{}", count) : fmt::format("tg{}@d{}", count, depth);
}

std::vector<BenchTest> parse_bench_tests(const std::string& list) {
  std::vector<BenchTest> tests;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    tests.push_back(parse_test(list.substr(begin, end - begin)));
    begin = end + 1;
  }
  return tests;
}

int run_bench(const Arguments& arguments) {
  SessionOptions options = session_options(arguments);
  const std::vector<BenchTest> tests = parse_bench_tests(
      arguments.text("tests").value_or("pp128,pp512,pp2048,tg128,tg128@d4096,tg128@d16384"));
  const size_t repetitions = static_cast<size_t>(arguments.integer("repetitions", 1, 1000).value_or(3));
  const std::string form = arguments.choice("output");
  const auto shape = arguments.text("shape");
  const auto file = arguments.text("model");
  if (shape && file) throw UsageError("-m and --shape: expected one of them, found both");
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
      const RandomModel random(*shape, *parse_scheme(scheme), options.threads, kRandomSeed);
      const Model model = Model::from_memory(random.bytes());
      if (arguments.has("mlock")) lock_pages(model.file());
      reports.push_back(Bench(model, options, repetitions).run(tests));
    }
  } else {
    const Model model = open_model(file, arguments);
    reports.push_back(Bench(model, options, repetitions).run(tests));
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
