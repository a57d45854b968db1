// What must hold for any model and any way of running it: how work is cut into runs, batches and chunks, what
// was forgotten before, and who holds which pages may not change what a sequence sees.
#include <doctest/doctest.h>

#include <map>

#include "tests/golden/golden_model.h"

namespace tessera::golden {
namespace {

uint32_t fresh_seed() {
  const uint32_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  return seed;
}

struct Setup {
  const GoldenModel* golden;
  std::string scheme;
  const Model* model;
  Runner runner;
  unsigned kv_bits;
  // Activations, keys or values become integer codes.
  bool has_codes() const {
    return kv_bits != 16 || activation_type(*parse_scheme(scheme)) == ActivationType::int8;
  }
};

// A token's result may not depend on what shares its batch or how a text was cut: equal to the last bit.
void check_same(const Rows& rows, const Rows& expected) { CHECK(largest_difference(rows, expected) == 0); }

// Collects comparisons of two backends, which sum floats in different orders. Without codes each must be
// close. With codes a float that lands on the other side of a rounding edge means that from there on the two
// runs round differently, by no more than rounding does: two of three must be close, the others similar.
// Logits here have a spread of about 2.
class Agreement {
 public:
  void add(const Setup& setup, const Rows& rows, const Rows& expected) {
    const double difference = largest_difference(rows, expected);
    if (!setup.has_codes()) {
      CHECK(difference <= kClose);
      return;
    }
    Count& count = counts_[setup.runner.name()];
    ++count.all;
    if (difference <= kClose) {
      ++count.close;
    } else {
      CHECK(relative_error(rows, expected) <= kSimilar);
    }
  }
  void finish() const {
    REQUIRE(counts_.size() == all_runners().size());
    for (const auto& entry : counts_) {
      const Count& count = entry.second;
      std::cout << entry.first << ": " << count.close << " of " << count.all
                << " runs with integer codes equal\n";
      CAPTURE(entry.first);
      CHECK(3 * count.close >= 2 * count.all);
    }
  }

 private:
  static constexpr double kClose = 1e-2;
  static constexpr double kSimilar = 0.25;
  struct Count {
    size_t all = 0;
    size_t close = 0;
  };
  std::map<std::string, Count> counts_;
};

// Models with every runner: its own scheme at all KV precisions, integer schemes with KV
// precisions in turn.
template <class Check>
void for_each_setup(const Check& check) {
  const std::vector<GoldenModel> models = models_for_every_way();
  constexpr std::array kKvBits = {16u, 8u, 4u};
  size_t turn = 0;
  for (const GoldenModel& golden : models) {
    for (const std::string& scheme : {golden.stored_scheme, std::string("w4a8-g128"), std::string("w8a8")}) {
      const QuantizedModel file(golden, scheme, false);
      const bool own = scheme == golden.stored_scheme;
      for (const Runner& runner : all_runners()) {
        ++turn;
        for (size_t k = 0; k < (own ? kKvBits.size() : 1); ++k) {
          const Setup setup{&golden, scheme, &file.model(), runner, kKvBits[(turn / 4 + turn + k) % 3]};
          CAPTURE(golden.name);
          CAPTURE(scheme);
          CAPTURE(runner.name());
          CAPTURE(setup.kv_bits);
          check(setup);
        }
      }
    }
  }
}

Rows fresh_rows(const Setup& setup, const Ids& ids) {
  Session session(*setup.model, options_for(setup.runner, setup.kv_bits));
  return run_rows(session, session.create_sequence(), ids);
}

Rows split_rows(std::span<const float> flat, size_t width) {
  Rows rows;
  for (size_t at = 0; at < flat.size(); at += width)
    rows.emplace_back(flat.begin() + static_cast<std::ptrdiff_t>(at),
                      flat.begin() + static_cast<std::ptrdiff_t>(at + width));
  return rows;
}

Rows last_rows(const Rows& rows, size_t count) {
  return Rows(rows.end() - static_cast<std::ptrdiff_t>(count), rows.end());
}

size_t pages_for(size_t tokens) { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }

}  // namespace

TEST_CASE("a sequence in a ragged batch gives the logits it gives alone") {
  std::mt19937 generator(fresh_seed());
  constexpr size_t kSteps = 6;
  for_each_setup([&](const Setup& setup) {
    const uint64_t vocabulary = setup.model->hyperparameters().vocabulary;
    const std::vector<size_t> prompts = {1, 63, 7, 64, 20};
    std::vector<Ids> texts;
    std::vector<Rows> alone, together(prompts.size());
    for (const size_t prompt : prompts) {
      texts.push_back(random_ids(generator, prompt + kSteps - 1, vocabulary));
      alone.push_back(last_rows(fresh_rows(setup, texts.back()), kSteps));
    }
    // The first three begin together; the others join while those go on token by token.
    Session session(*setup.model, options_for(setup.runner, setup.kv_bits));
    std::vector<SequenceId> ids;
    for (size_t s = 0; s < texts.size(); ++s) ids.push_back(session.create_sequence());
    for (size_t step = 0; step < kSteps + 1; ++step) {
      std::vector<SequenceInput> inputs;
      std::vector<size_t> who;
      for (size_t s = 0; s < texts.size(); ++s) {
        const size_t joins = s < 3 ? 0 : 1;
        if (step < joins || step - joins >= kSteps) continue;
        const std::span<const uint32_t> text(texts[s]);
        const auto next =
            step == joins ? text.first(prompts[s]) : text.subspan(prompts[s] + step - joins - 1, 1);
        inputs.push_back({ids[s], next, LogitRows::last});
        who.push_back(s);
      }
      const Rows rows = split_rows(session.run(inputs), vocabulary);
      REQUIRE(rows.size() == who.size());
      for (size_t i = 0; i < who.size(); ++i) together[who[i]].push_back(rows[i]);
    }
    for (size_t s = 0; s < texts.size(); ++s) {
      CAPTURE(s);
      check_same(together[s], alone[s]);
    }
  });
}

TEST_CASE("golden text comes out of a busy batch") {
  std::mt19937 generator(fresh_seed());
  for (const GoldenModel& golden : models_for_every_way()) {
    const QuantizedModel file(golden, golden.stored_scheme, true);
    const Case& c = golden.cases.front();
    const uint64_t vocabulary = file.model().hyperparameters().vocabulary;
    for (const Runner& runner : all_runners()) {
      CAPTURE(golden.name);
      CAPTURE(runner.name());
      Session session(file.model(), options_for(runner));
      const SequenceId sequence = session.create_sequence();
      Ids ids = c.prompt_ids;
      Ids next = ids;
      std::vector<SequenceId> others;
      while (true) {
        // Others come and go, before and after it in the batch; none reaches the end of its context.
        std::erase_if(others, [&](SequenceId other) {
          const bool leaves = session.length(other) > 100 || generator() % 8 == 0;
          if (leaves) session.release(other);
          return leaves;
        });
        if (others.size() < 3) others.push_back(session.create_sequence());
        const size_t before = generator() % (others.size() + 1);
        std::vector<Ids> noise;
        for (size_t i = 0; i < others.size(); ++i)
          noise.push_back(random_ids(generator, 1 + generator() % 12, vocabulary));
        std::vector<SequenceInput> inputs;
        for (size_t i = 0; i < others.size(); ++i) {
          if (i == before) inputs.push_back({sequence, next, LogitRows::last});
          inputs.push_back({others[i], noise[i], LogitRows::none});
        }
        if (before == others.size()) inputs.push_back({sequence, next, LogitRows::last});
        const std::span<float> logits = session.run(inputs);
        REQUIRE(logits.size() == vocabulary);
        next = {best_token({logits.begin(), logits.end()})};
        ids.push_back(next.front());
        if (ids.size() == c.sequence.size()) break;
      }
      CHECK(ids == c.sequence);
    }
  }
}

TEST_CASE("a prompt in one piece, in chunks and token by token gives the same logits") {
  std::mt19937 generator(fresh_seed());
  for_each_setup([&](const Setup& setup) {
    const Ids text = random_ids(generator, 75, setup.model->hyperparameters().vocabulary);
    const Rows whole = fresh_rows(setup, text);
    REQUIRE(whole.size() == text.size());
    for (const size_t chunk : {7, 64, 1}) {
      SessionOptions options = options_for(setup.runner, setup.kv_bits);
      options.batch = chunk;
      Session session(*setup.model, options);
      const SequenceId sequence = session.create_sequence();
      CAPTURE(chunk);
      check_same(run_rows(session, sequence, text), whole);
      CHECK(session.length(sequence) == text.size());
    }
    // The caller cuts instead.
    Session session(*setup.model, options_for(setup.runner, setup.kv_bits));
    const SequenceId sequence = session.create_sequence();
    Rows pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t count = std::min<size_t>(1 + generator() % 20, text.size() - at);
      for (auto& row : run_rows(session, sequence, std::span(text).subspan(at, count)))
        pieces.push_back(std::move(row));
      at += count;
    }
    check_same(pieces, whole);
    CHECK(session.tokens(sequence) == text);
  });
}

TEST_CASE("after truncate a sequence is as if the rest had never been") {
  std::mt19937 generator(fresh_seed());
  for_each_setup([&](const Setup& setup) {
    const uint64_t vocabulary = setup.model->hyperparameters().vocabulary;
    Session session(*setup.model, options_for(setup.runner, setup.kv_bits));
    const SequenceId sequence = session.create_sequence();
    Ids text = random_ids(generator, 90, vocabulary);
    run_rows(session, sequence, text, LogitRows::last);
    for (const size_t keep : {70, 64, 13, 0}) {
      CAPTURE(keep);
      session.truncate(sequence, keep);
      CHECK(session.length(sequence) == keep);
      CHECK(session.pages_in_use() == pages_for(keep));
      text.resize(keep);
      const Ids more = random_ids(generator, 1 + generator() % 9, vocabulary);
      text.insert(text.end(), more.begin(), more.end());
      const Rows again = run_rows(session, sequence, more);
      check_same(again, last_rows(fresh_rows(setup, text), more.size()));
      CHECK(session.tokens(sequence) == text);
    }
  });
}

TEST_CASE("pages are counted, given back, used again, and a full cache changes nothing") {
  std::mt19937 generator(fresh_seed());
  for_each_setup([&](const Setup& setup) {
    const uint64_t vocabulary = setup.model->hyperparameters().vocabulary;
    SessionOptions options = options_for(setup.runner, setup.kv_bits);
    options.context = 2 * kKvPageTokens;
    Session session(*setup.model, options);
    REQUIRE(session.memory().context == options.context);
    CHECK(session.pages_in_use() == 0);

    const SequenceId first = session.create_sequence();
    const SequenceId second = session.create_sequence();
    const Ids text = random_ids(generator, 60, vocabulary);
    run_rows(session, first, text, LogitRows::last);
    CHECK(session.pages_in_use() == 1);
    run_rows(session, second, text, LogitRows::last);
    CHECK(session.pages_in_use() == 2);

    // Both pages are taken: four more tokens fit, a fifth does not.
    const Ids more = random_ids(generator, 5, vocabulary);
    CHECK_THROWS_AS(run_rows(session, first, more, LogitRows::last), std::runtime_error);
    CHECK(session.length(first) == text.size());
    CHECK(session.tokens(first) == text);
    CHECK(session.pages_in_use() == 2);
    // One run that fits for one sequence and not for the other appends to neither.
    const std::vector<SequenceInput> both = {{second, std::span(more).first(1), LogitRows::last},
                                             {first, more, LogitRows::last}};
    CHECK_THROWS_AS(session.run(both), std::runtime_error);
    CHECK(session.length(first) == text.size());
    CHECK(session.length(second) == text.size());

    session.release(second);
    CHECK(session.pages_in_use() == 1);
    const Rows rows = run_rows(session, first, more);
    Ids all = text;
    all.insert(all.end(), more.begin(), more.end());
    const Rows fresh = fresh_rows(setup, all);
    check_same(rows, last_rows(fresh, more.size()));
    CHECK(session.pages_in_use() == 2);
    session.release(first);
    CHECK(session.pages_in_use() == 0);

    // Returned pages serve a new sequence as fresh ones would.
    const SequenceId third = session.create_sequence();
    check_same(run_rows(session, third, all), fresh);
    session.release(third);
    CHECK(session.pages_in_use() == 0);
  });
}

// Many short sequences, since in a long one sooner or later a code falls to the other side of its edge.
TEST_CASE("integer schemes on the cpu equal the reference backend") {
  std::mt19937 generator(fresh_seed());
  Agreement agreement;
  for (const GoldenModel& golden : models_for_every_way()) {
    for (const std::string scheme : {"w4a8-g128", "w4a8", "w8a8"}) {
      for (const bool keep_head : {false, true}) {
        const QuantizedModel file(golden, scheme, keep_head);
        const uint64_t vocabulary = file.model().hyperparameters().vocabulary;
        std::vector<Ids> texts;
        for (size_t i = 0; i < 12; ++i)
          texts.push_back(random_ids(generator, 1 + generator() % 8, vocabulary));
        const auto run = [&](const Runner& runner) {
          SessionOptions options = options_for(runner);
          options.sequences = texts.size();
          Session session(file.model(), options);
          std::vector<Rows> all;
          for (const Ids& text : texts) all.push_back(run_rows(session, session.create_sequence(), text));
          return all;
        };
        const std::vector<Rows> expected = run({"reference", "auto"});
        for (const Runner& runner : all_runners()) {
          CAPTURE(golden.name);
          CAPTURE(scheme);
          CAPTURE(keep_head);
          CAPTURE(runner.name());
          const std::vector<Rows> rows = run(runner);
          for (size_t i = 0; i < texts.size(); ++i)
            agreement.add({&golden, scheme, &file.model(), runner, 16}, rows[i], expected[i]);
        }
      }
    }
  }
  agreement.finish();
}

TEST_CASE("caches of 8 and 4 bits stay close to 16 bits, and the first layers can be spared") {
  for (const GoldenModel& golden : models_for_every_way()) {
    const QuantizedModel file(golden, golden.stored_scheme, true);
    const Case& c = golden.cases.front();
    const auto run = [&](const Runner& runner, unsigned kv_bits, size_t first_layers) {
      SessionOptions options = options_for(runner, kv_bits);
      options.kv_first_layers = first_layers;
      Session session(file.model(), options);
      return run_rows(session, session.create_sequence(), c.sequence);
    };
    const Rows reference8 = run({"reference", "auto"}, 8, 0);
    const Rows reference4 = run({"reference", "auto"}, 4, 0);
    for (const Runner& runner : all_runners()) {
      CAPTURE(golden.name);
      CAPTURE(runner.name());
      const Rows kv16 = run(runner, 16, 0), kv8 = run(runner, 8, 0), kv4 = run(runner, 4, 0);
      const double error8 = relative_error(kv8, kv16), error4 = relative_error(kv4, kv16);
      std::cout << golden.name << ", " << runner.name() << ": relative logit error " << error8
                << " with 8 bits, " << error4 << " with 4\n";
      CHECK(error8 > 0);
      CHECK(error8 < 0.1);
      CHECK(error4 > error8);
      CHECK(error4 < 0.9);
      CHECK(relative_error(kv8, reference8) < 0.5 * error8);
      CHECK(relative_error(kv4, reference4) < 0.5 * error4);
      // One layer at 16 bits helps, all layers at 16 bits are the 16-bit cache.
      CHECK(relative_error(run(runner, 4, 1), kv16) < error4);
      CHECK(largest_difference(run(runner, 4, file.model().hyperparameters().layers), kv16) == 0);
    }
  }
}

// The model with a context of 2,048 tokens, many times its window.
GoldenModel with_longer_context(const GoldenModel& golden, const std::filesystem::path& folder) {
  std::filesystem::copy(golden.folder, folder, std::filesystem::copy_options::recursive);
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(std::ifstream(folder / "config.json"));
  config["max_position_embeddings"] = 2048;
  std::ofstream(folder / "config.json") << config;
  GoldenModel longer = golden;
  longer.folder = folder;
  return longer;
}

TEST_CASE("pages of a window are used again, and what a sequence sees stays the same") {
  std::mt19937 generator(fresh_seed());
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("tessera-windows-" + std::to_string(getpid()));
  const auto models = random_models();
  const auto golden = std::find_if(models.begin(), models.end(), [](const GoldenModel& model) {
    return model.name == "gemma3-windows-bf16";
  });
  REQUIRE(golden != models.end());
  const QuantizedModel file(with_longer_context(*golden, folder), "w8a8", false);
  std::filesystem::remove_all(folder);
  const uint64_t vocabulary = file.model().hyperparameters().vocabulary;
  unsigned turn = 0;
  for (const Runner& runner : all_runners()) {
    CAPTURE(runner.name());
    SessionOptions options = options_for(runner, std::array{16u, 8u, 4u}[turn++ % 3]);
    options.context = 2048;
    options.max_outputs = 8;
    options.batch = 2048;  // the pages of a sequence hold all of its tokens
    Session kept(file.model(), options);
    options.batch = 100;
    Session used_again(file.model(), options);
    const KvStorage& few = used_again.runtime().kv();
    REQUIRE(few.geometry().window_pages < 12);
    REQUIRE(kept.runtime().kv().geometry().window_pages == 32);
    const KvPageBytes page = used_again.runtime().backend().kv_page_bytes(few.geometry());
    CHECK(used_again.memory().kv_bytes == 32 * page.full + few.geometry().window_pages * page.window);
    CHECK(used_again.memory().kv_bytes < kept.memory().kv_bytes);

    Ids text = random_ids(generator, 1000 + generator() % 100, vocabulary);
    const SequenceId whole = kept.create_sequence();
    const SequenceId sequence = used_again.create_sequence();
    const auto last = [&](Session& session, SequenceId id, std::span<const uint32_t> tokens) {
      return run_rows(session, id, tokens, LogitRows::last);
    };
    check_same(last(used_again, sequence, text), last(kept, whole, text));
    // Back by less than is kept, and on.
    for (const size_t back : {1, 70, 300}) {
      const size_t left = text.size() - back;
      CHECK(used_again.truncate(sequence, left) == left);
      kept.truncate(whole, left);
      text.resize(left);
      const Ids more = random_ids(generator, back + generator() % 150, vocabulary);
      text.insert(text.end(), more.begin(), more.end());
      check_same(last(used_again, sequence, more), last(kept, whole, more));
    }
    // Another sequence finds no pages as long as this one has them.
    const Ids other = random_ids(generator, 400, vocabulary);
    const SequenceId second = used_again.create_sequence();
    CHECK_THROWS_WITH(last(used_again, second, other),
                      "KV cache is full: layers with a window have pages for 1 sequences beyond it");
    CHECK(used_again.length(second) == 0);
    // Back by more: it begins again.
    CHECK(used_again.truncate(sequence, 200) == 0);
    CHECK(used_again.pages_in_use() == 0);
    last(used_again, second, other);
    used_again.release(second);
    check_same(last(used_again, sequence, std::span(text).first(250)),
               last(kept, kept.create_sequence(), std::span(text).first(250)));
  }
}

}  // namespace tessera::golden
