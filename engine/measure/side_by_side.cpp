#include "engine/measure/side_by_side.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <stdexcept>

#include "engine/quantize/plan/row_blocks.h"
#include "engine/readable_bytes.h"

namespace tessera {

namespace {

constexpr size_t kMostTokens = 512;  // of a chunk
constexpr size_t kMostLogitBytes = size_t{128} << 20;
constexpr size_t kMostSharedLogitBytes = size_t{32} << 20;  // of each model, where several are in memory
constexpr size_t kRowsPerBlock = 8;

// The memory of all sessions of a pass. Files that several of them read count once.
class SharedMemory {
 public:
  explicit SharedMemory(size_t logit_bytes) : logit_bytes_(logit_bytes) {}

  void add(const Session& session) {
    const MemoryFigures& memory = session.memory();
    if (sessions_++ == 0) figures_ = {0, 0, 0, memory.context, memory.kv_bits, memory.available_bytes};
    // What lies on a device was planned against what was free there when the session was made.
    for (const Place& place : memory.places) {
      if (place.on_device) figures_.available_bytes = 0;
    }
    for (const Weight& weight : session.model().graph().weights) {
      const std::span<const std::byte> bytes = session.model().file().require(weight.name).bytes;
      if (seen_.insert(bytes.data()).second) figures_.weight_bytes += bytes.size();
    }
    figures_.kv_bytes += memory.kv_bytes;
    figures_.activation_bytes += memory.activation_bytes + logit_bytes_;
  }
  bool fits() const {
    return figures_.available_bytes == 0 ||
           figures_.weight_bytes + figures_.kv_bytes + figures_.activation_bytes <= figures_.available_bytes;
  }
  std::string text() const {
    return fmt::format("weights {}, KV caches {}, activations {}; {} available",
                       readable_bytes(figures_.weight_bytes), readable_bytes(figures_.kv_bytes),
                       readable_bytes(figures_.activation_bytes), readable_bytes(figures_.available_bytes));
  }

 private:
  size_t logit_bytes_;
  size_t sessions_ = 0;
  MemoryFigures figures_;
  std::set<const std::byte*> seen_;
};

std::unique_ptr<Session> make_session(const Contender& contender, size_t window, size_t chunk) {
  SessionOptions options = contender.options;
  options.context = window;
  options.batch = chunk;
  options.max_outputs = chunk;
  return std::make_unique<Session>(*contender.model, options);
}

// One model's logits for the tokens of a chunk, and -log p of the text's token after each.
struct ScoredRows {
  std::span<const float> logits;
  std::vector<LogitRow> rows;
  std::vector<double> nats;
};

// One reading of the text by the reference and as many models as fit the memory beside it.
class Pass {
 public:
  Pass(size_t vocabulary, size_t chunk, size_t threads)
      : vocabulary_(vocabulary), chunk_(chunk), threads_(threads) {}

  void set_reference(std::unique_ptr<Session> session, const std::string& name) {
    reference_ = {std::move(session), name, 0, {}};
    reference_->sequence = reference_->session->create_sequence();
    probabilities_.resize(chunk_ * vocabulary_);
  }
  void add(std::unique_ptr<Session> session, const std::string& name) {
    const SequenceId sequence = session->create_sequence();
    models_.push_back({std::move(session), name, sequence, {}});
    if (reference_) models_.back().quality.divergence.emplace();
  }
  size_t models() const { return models_.size(); }
  const Session& session(size_t model) const { return *models_[model].session; }
  size_t sessions() const { return models_.size() + (reference_ ? 1 : 0); }

  // progress(tokens run in this pass, of all models together).
  template <class Progress>
  void run(const WindowPlan& plan, const Progress& progress) {
    size_t done = 0;
    for (const Window& window : plan.windows) {
      const std::vector<uint32_t> tokens = window.tokens();
      if (reference_) reference_->session->truncate(reference_->sequence, 0);
      for (Entry& model : models_) model.session->truncate(model.sequence, 0);
      // The last token predicts nothing that is in the window, so it is never run.
      for (size_t begin = 0; begin + 1 < tokens.size();) {
        const bool scores = begin + 1 >= window.context;
        const size_t stop = scores ? tokens.size() - 1 : std::min(window.context - 1, tokens.size() - 1);
        const size_t count = std::min(chunk_, stop - begin);
        run_chunk(std::span(tokens).subspan(begin, count + 1), scores,
                  [&](size_t model) { progress(done + model * count, models_.front().quality.nats); });
        begin += count;
        done += count * sessions();
      }
    }
  }

  ModelQuality model_quality(size_t index) { return std::move(models_[index].quality); }
  ModelQuality reference_quality() { return std::move(reference_->quality); }

 private:
  struct Entry {
    std::unique_ptr<Session> session;
    std::string name;
    SequenceId sequence = 0;
    ModelQuality quality;
  };

  // tokens is one longer than what is run: the last is only predicted.
  template <class Progress>
  void run_chunk(std::span<const uint32_t> tokens, bool scores, const Progress& progress) {
    size_t ran = 0;
    ScoredRows reference;
    if (reference_) {
      reference = run_model(*reference_, tokens, scores);
      progress(++ran);
    }
    if (reference_ && scores) {
      over_rows(reference.rows.size(), [&](size_t row) {
        softmax(row_of(reference.logits, row), reference.rows[row], probabilities_of(row));
      });
    }
    for (Entry& model : models_) {
      const ScoredRows scored = run_model(model, tokens, scores);
      if (reference_ && scores) compare(model, scored, reference);
      progress(++ran);
    }
  }

  ScoredRows run_model(Entry& entry, std::span<const uint32_t> tokens, bool scores) {
    const SequenceInput input{entry.sequence, tokens.first(tokens.size() - 1),
                              scores ? LogitRows::all : LogitRows::none};
    ScoredRows scored;
    try {
      scored.logits = entry.session->run({&input, 1});
    } catch (const LogitsNotFinite&) {
      throw LogitsNotFinite(entry.name);  // as the report calls it
    }
    if (!scores) return scored;
    const size_t count = tokens.size() - 1;
    scored.rows.resize(count);
    scored.nats.resize(count);
    over_rows(count, [&](size_t row) {
      const std::span<const float> logits = row_of(scored.logits, row);
      scored.rows[row] = read_logits(logits);
      scored.nats[row] = scored.rows[row].normalizer - static_cast<double>(logits[tokens[row + 1]]);
    });
    for (const double nats : scored.nats) {
      if (!std::isfinite(nats)) throw LogitsNotFinite(entry.name);
      entry.quality.nats.add(nats);
    }
    return scored;
  }

  void compare(Entry& entry, const ScoredRows& scored, const ScoredRows& reference) {
    std::vector<TokenDivergence> tokens(scored.rows.size());
    over_rows(tokens.size(), [&](size_t row) {
      tokens[row].kl = kl_divergence(probabilities_of(row), row_of(reference.logits, row),
                                     reference.rows[row], row_of(scored.logits, row), scored.rows[row]);
      tokens[row].more_nats = scored.nats[row] - reference.nats[row];
      tokens[row].same_top = scored.rows[row].top == reference.rows[row].top;
    });
    for (const TokenDivergence& token : tokens) {
      if (!std::isfinite(token.kl)) throw LogitsNotFinite(entry.name);
      entry.quality.divergence->add(token);
    }
  }

  template <class Job>
  void over_rows(size_t rows, const Job& job) const {
    const size_t blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
    // Starting threads costs more than a few short rows.
    const size_t threads = rows * vocabulary_ < size_t{1} << 17 ? 1 : threads_;
    run_row_blocks(blocks, threads, [&](size_t block, size_t) {
      for (size_t row = block * kRowsPerBlock; row < std::min(rows, (block + 1) * kRowsPerBlock); ++row) {
        job(row);
      }
    });
  }

  std::span<const float> row_of(std::span<const float> logits, size_t row) const {
    return logits.subspan(row * vocabulary_, vocabulary_);
  }
  std::span<double> probabilities_of(size_t row) {
    return std::span(probabilities_).subspan(row * vocabulary_, vocabulary_);
  }

  size_t vocabulary_;
  size_t chunk_;
  size_t threads_;
  std::optional<Entry> reference_;
  std::vector<Entry> models_;
  std::vector<double> probabilities_;  // the reference's, of a chunk
};

// Adds contenders from `next` on until one no longer fits beside the others.
void fill_pass(Pass& pass, SharedMemory& memory, const std::vector<Contender>& contenders, size_t next,
               size_t window, size_t chunk, size_t most_at_once) {
  while (next < contenders.size() && pass.models() < most_at_once) {
    std::unique_ptr<Session> session;
    try {
      session = make_session(contenders[next], window, chunk);
    } catch (const std::runtime_error&) {
      if (pass.models() == 0) throw;
      return;  // it may fit in a later pass, which throws if it does not
    }
    SharedMemory with = memory;
    with.add(*session);
    if (contenders[next].options.memory_check && !with.fits()) {
      if (pass.models() > 0) return;
      throw std::runtime_error(
          fmt::format("not enough memory for {} beside the reference: {}; a smaller --window, --kv or "
                      "--reference-kv needs less",
                      contenders[next].name, with.text()));
    }
    memory = std::move(with);
    pass.add(std::move(session), contenders[next].name);
    ++next;
  }
}

}  // namespace

SideBySide measure_side_by_side(const WindowPlan& plan, size_t window,
                                const std::optional<Contender>& reference,
                                const std::vector<Contender>& contenders, const SideBySideEvents& events,
                                size_t most_at_once) {
  const Hyperparameters& first = contenders.front().model->hyperparameters();
  const auto vocabulary = static_cast<size_t>(first.vocabulary);
  const bool alone = !reference && contenders.size() == 1;
  const size_t chunk = std::clamp<size_t>(
      (alone ? kMostLogitBytes : kMostSharedLogitBytes) / (vocabulary * sizeof(float)), 1, kMostTokens);
  const size_t chunk_tokens = std::min(chunk, window);
  const size_t logit_bytes = chunk_tokens * vocabulary * sizeof(float);
  size_t tokens = 0;  // that one model runs
  for (const Window& each : plan.windows) tokens += each.tokens().size() - 1;

  SideBySide result;
  size_t done = 0;
  for (size_t next = 0; next < contenders.size();) {
    Pass pass(vocabulary, chunk_tokens, contenders.front().options.threads);
    SharedMemory memory(logit_bytes);
    if (reference) {
      std::unique_ptr<Session> session = make_session(*reference, window, chunk_tokens);
      memory.add(*session);
      result.reference_kv_bits = session->memory().kv_bits;
      pass.set_reference(std::move(session), reference->name);
    }
    fill_pass(pass, memory, contenders, next, window, chunk_tokens, most_at_once);
    const size_t passes_left = (contenders.size() - next + pass.models() - 1) / pass.models();
    if (alone) {
      if (events.memory) events.memory(pass.session(0).memory());
    } else if (next == 0) {
      if (events.shared_memory)
        events.shared_memory(fmt::format("memory of {} models: {}", pass.sessions(), memory.text()));
      if (passes_left > 1 && events.passes) {
        events.passes(fmt::format("{} of {} are run at once{}: {} passes over the text", pass.models(),
                                  contenders.size(), reference ? " beside the reference" : "", passes_left));
      }
    }
    const size_t total = done + tokens * (contenders.size() - next + (reference ? passes_left : 0));
    pass.run(plan, [&](size_t ran, const SampleMean& nats) {
      if (events.progress) events.progress(done + ran, total, nats);
    });
    done += tokens * pass.sessions();
    if (reference && next == 0) result.reference = pass.reference_quality();
    if (next == 0) result.backend = pass.session(0).backend_description();
    for (size_t i = 0; i < pass.models(); ++i) {
      result.kv_bits.push_back(pass.session(i).memory().kv_bits);
      result.models.push_back(pass.model_quality(i));
    }
    next += pass.models();
  }
  return result;
}

}  // namespace tessera
