#include "commands/bench/bench_runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <random>

#include "commands/bench/bench_work.h"
#include "commands/load_model.h"
#include "commands/terminal/terminal.h"
#include "engine/measure/sample_statistics.h"
#include "engine/session.h"

namespace tessera {

namespace {

constexpr uint64_t kTokenSeed = 20240611;

SpeedLimits mean_limits(const SpeedLimits& before, const SpeedLimits& after) {
  return {(before.read_gbps + after.read_gbps) / 2, (before.int8_gops + after.int8_gops) / 2};
}

// Runs the tests of one model.
class BenchRuns {
 public:
  BenchRuns(const Model& model, const SessionOptions& options, size_t repetitions)
      : model_(model), options_(options), repetitions_(repetitions), generator_(kTokenSeed) {}

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
    limits_now(*session);  // the first is measured with cold caches and low clocks: it does not count
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
      } catch (const LogitsNotFinite&) {
        throw;  // figures of such a model mean nothing
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
        options.context = std::max(options.context, test.cache_tokens());
        if (test.kind == BenchTest::Kind::batch)
          options.max_outputs = std::max(options.max_outputs, test.count);
        options.sequences = options.max_outputs;
      }
      options.batch = std::max(options.batch, options.max_outputs);
      // Layers are split between memories only where --gpu-layers says so.
      if (find_backend(options.backend).on_device && !options.gpu_layers)
        options.gpu_layers = model_.hyperparameters().layers;
      try {
        return std::make_unique<Session>(model_, options);
      } catch (const std::runtime_error& error) {
        const auto largest = std::max_element(tests.begin(), tests.end(), [](const auto& a, const auto& b) {
          return a.cache_tokens() < b.cache_tokens();
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
    const SpeedLimits limits = mean_limits(before, limits_now(session, place));
    for (ProductSpeed& speed : speeds) {
      if (speed.seconds <= 0) {
        skip(report, test, fmt::format("{}: too quick to be told from the rest of a run", speed.name));
        continue;
      }
      BenchProduct product;
      product.test = test;
      if (places.size() > 1) product.place = places[place].name;
      product.limits = limits;
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

  // A run whose results are not read: where the backend can select, only the best token of each row is copied
  // back, as in a greedy reply.
  static void run(Session& session, std::span<const SequenceInput> inputs) {
    if (session.gives_best(1)) {
      session.run_best(inputs, 1);
    } else {
      session.run(inputs);
    }
  }

  std::string reason_to_skip(const BenchTest& test) const {
    if (test.kind == BenchTest::Kind::product) return "";
    const size_t own = test.sequence_tokens();
    if (own > model_.hyperparameters().context) {
      return fmt::format("needs {} tokens of context, the model has {}", own,
                         model_.hyperparameters().context);
    }
    const size_t all = test.kind == BenchTest::Kind::batch ? kBatchTestTokens * test.count : own;
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

  // Limits of a place, measured now. Those of the first place are the report's.
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
    const TokenWork work = token_work(test, model_, session.memory(), options_.batch);
    result.bytes_per_token = work.weight_bytes;
    result.kv_bytes_per_token = work.kv_bytes;
    result.operations_per_token = work.operations;
    const double bytes = test.kind == BenchTest::Kind::attention ? work.kv_bytes : work.weight_bytes;

    const std::function<double()> once = prepare(session, test);
    std::vector<double> speeds, shares_of_memory, shares_of_arithmetic, reads, peaks;
    ProgressBar bar(test.name());
    once();  // reads the weights into memory and raises the clocks; not counted
    SpeedLimits before = limits_now(session);
    for (size_t i = 0; i < repetitions_; ++i) {
      bar.update(i + 1, repetitions_ + 1);
      const double speed = once();
      const SpeedLimits after = limits_now(session);
      const SpeedLimits around = mean_limits(before, after);
      before = after;
      speeds.push_back(speed);
      reads.push_back(around.read_gbps);
      peaks.push_back(around.int8_gops);
      shares_of_memory.push_back(speed * bytes / (around.read_gbps * 1e9));
      shares_of_arithmetic.push_back(speed * work.operations / (around.int8_gops * 1e9));
    }
    for (const SequenceId sequence : sequences_) session.release(sequence);
    sequences_.clear();
    result.tokens_per_second = median(speeds);
    result.low = *std::min_element(speeds.begin(), speeds.end());
    result.high = *std::max_element(speeds.begin(), speeds.end());
    result.limits = {median(reads), median(peaks)};
    const double of_memory = median(shares_of_memory);
    const double of_arithmetic = median(shares_of_arithmetic);
    // The limit of prompts is arithmetic and that of generation is memory; a batch has the one it comes
    // closer to.
    result.memory_bound = test.kind == BenchTest::Kind::generate || test.kind == BenchTest::Kind::attention ||
                          (test.kind == BenchTest::Kind::batch && of_memory >= of_arithmetic);
    result.share = result.memory_bound ? of_memory : of_arithmetic;
    return result;
  }

  // The function that runs one repetition of a test and returns its tokens per second. Tokens are random and
  // drawn beforehand: choosing them is not part of what is measured.
  std::function<double()> prepare(Session& session, const BenchTest& test) {
    if (test.kind == BenchTest::Kind::batch) {
      for (size_t i = 0; i < test.count; ++i) sequences_.push_back(session.create_sequence());
      return [&session, sequences = sequences_, tokens = random_tokens(test.count * kBatchTestTokens)] {
        for (const SequenceId sequence : sequences) session.truncate(sequence, 0);
        return timed(tokens.size(), [&] {
          for (size_t step = 0; step < kBatchTestTokens; ++step) {
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
          // In pieces of --batch: a session that is shared with other tests may allow larger ones.
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
  std::mt19937_64 generator_;
  std::vector<SequenceId> sequences_;  // of the test that runs
  std::vector<double> read_gbps_;
  std::vector<double> int8_gops_;
};

}  // namespace

BenchReport run_bench_tests(const Model& model, const SessionOptions& options, size_t repetitions,
                            const std::vector<BenchTest>& tests) {
  return BenchRuns(model, options, repetitions).run(tests);
}

}  // namespace tessera
