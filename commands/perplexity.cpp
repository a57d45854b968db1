// How well a model predicts a text: mean negative log-likelihood over windows, and perplexity.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "commands/commands.h"
#include "commands/load_model.h"
#include "commands/terminal.h"
#include "commands/text_file.h"

namespace tessera {

namespace {

constexpr size_t kDefaultWindow = 2048;
constexpr size_t kMostLogitBytes = size_t{128} << 20;

// A run of text tokens that is evaluated from an empty cache.
struct Window {
  std::span<const uint32_t> text;
  std::optional<uint32_t> first;  // a token before the text: bos
  size_t context = 1;             // leading tokens, first included, that are only read; at least 1

  std::vector<uint32_t> tokens() const {
    std::vector<uint32_t> all(text.begin(), text.end());
    if (first) all.insert(all.begin(), *first);
    return all;
  }
};

struct Sums {
  size_t count = 0;
  double total = 0;    // of -log p
  double squares = 0;  // of (-log p)^2
  void add(double nats) {
    ++count;
    total += nats;
    squares += nats * nats;
  }
  double mean() const { return total / static_cast<double>(count); }
  double standard_error() const {
    if (count < 2) return 0;
    const auto n = static_cast<double>(count);
    const double variance = std::max(0.0, (squares - total * total / n) / (n - 1));
    return std::sqrt(variance / n);
  }
};

double negative_log_likelihood(std::span<const float> logits, uint32_t token) {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - most));
  return std::log(sum) - static_cast<double>(logits[token] - most);
}

struct Plan {
  std::vector<std::vector<uint32_t>> texts;  // what the windows look into
  std::vector<Window> windows;
  size_t text_tokens = 0;
  size_t left_out = 0;  // text tokens that no window holds
};

// Windows of `window` tokens, bos included where there is one, whose starts are `stride` text tokens apart.
// Only what no earlier window scored is scored. The incomplete rest is left out unless it is all there is.
Plan plan_windows(std::vector<uint32_t> ids, std::optional<uint32_t> bos, size_t window, size_t stride) {
  Plan plan;
  plan.text_tokens = ids.size();
  const std::span<const uint32_t> text = plan.texts.emplace_back(std::move(ids));
  const size_t begin_tokens = bos ? 1 : 0;
  const size_t room = window - begin_tokens;
  size_t scored_to = 0;
  for (size_t begin = 0; begin < text.size(); begin += stride) {
    const size_t count = std::min(room, text.size() - begin);
    if (count < room && !plan.windows.empty()) break;
    const size_t seen_before = scored_to - std::min(scored_to, begin);
    plan.windows.push_back(
        {text.subspan(begin, count), bos, std::max<size_t>(seen_before + begin_tokens, 1)});
    scored_to = begin + count;
  }
  plan.left_out = text.size() - scored_to;
  return plan;
}

Plan plan_lines(std::string_view text, const Tokenizer& tokenizer, bool parse_special,
                std::optional<uint32_t> bos, size_t window) {
  Plan plan;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::vector<uint32_t> ids = tokenizer.encode(text.substr(begin, end - begin), parse_special);
    begin = end + 1;
    if (ids.empty()) continue;
    plan.text_tokens += ids.size();
    const std::optional<uint32_t> first = ids.front() == bos ? std::nullopt : bos;
    const size_t count = std::min(ids.size(), window - (first ? 1 : 0));
    plan.left_out += ids.size() - count;
    if (count + (first ? 1 : 0) < 2) continue;
    plan.windows.push_back({std::span(plan.texts.emplace_back(std::move(ids))).first(count), first, 1});
  }
  return plan;
}

Sums evaluate(Session& session, const std::vector<Window>& windows, size_t vocabulary, size_t chunk) {
  Sums sums;
  size_t total = 0;
  for (const Window& window : windows) total += window.text.size();
  ProgressBar bar("perplexity");
  size_t done = 0;
  const SequenceId sequence = session.create_sequence();
  for (const Window& window : windows) {
    session.truncate(sequence, 0);
    const std::vector<uint32_t> tokens = window.tokens();
    // The last token predicts nothing that is in the window, so it is never run.
    for (size_t begin = 0; begin + 1 < tokens.size();) {
      const bool scores = begin + 1 >= window.context;
      const size_t stop = scores ? tokens.size() - 1 : std::min(window.context - 1, tokens.size() - 1);
      const size_t count = std::min(chunk, stop - begin);
      const SequenceInput input{sequence, std::span(tokens).subspan(begin, count),
                                scores ? SequenceInput::Want::all : SequenceInput::Want::none};
      const std::span<float> logits = session.run({&input, 1});
      for (size_t row = 0; scores && row < count; ++row) {
        const double nats =
            negative_log_likelihood(logits.subspan(row * vocabulary, vocabulary), tokens[begin + row + 1]);
        if (!std::isfinite(nats)) {
          throw std::runtime_error(
              "the model's logits are not finite: the file is damaged or does not fit its graph");
        }
        sums.add(nats);
      }
      begin += count;
      if (sums.count > 0) bar.rename(fmt::format("perplexity {:.3f}", std::exp(sums.mean())));
      bar.update(done + begin, total);
    }
    done += window.text.size();
  }
  session.release(sequence);
  return sums;
}

}  // namespace

int run_perplexity(const Arguments& arguments) {
  SessionOptions options = session_options(arguments);
  const auto window_given = arguments.integer("window", 2, 1 << 24);
  const auto stride_given = arguments.integer("stride", 1, 1 << 24);
  const bool lines = arguments.has("lines");
  if (lines && stride_given) throw UsageError("--stride: has no meaning with --lines");
  const auto file = arguments.text("text");
  if (!file && is_terminal(STDIN_FILENO)) throw UsageError("--text: the text to measure on is missing");

  const Model model = open_model(arguments.operands().front(), arguments);
  const Tokenizer& tokenizer = model.tokenizer();
  const auto context = static_cast<size_t>(model.hyperparameters().context);
  const size_t window = window_given ? static_cast<size_t>(*window_given) : std::min(kDefaultWindow, context);
  if (window > context) {
    throw UsageError(
        fmt::format("--window: expected at most the model's context of {}, found {}", context, window));
  }
  const std::optional<uint32_t> bos = tokenizer.adds_bos() ? tokenizer.bos() : std::nullopt;
  const size_t room = window - (bos ? 1 : 0);
  const size_t stride = stride_given ? static_cast<size_t>(*stride_given) : room;
  if (stride > room) {
    throw UsageError(
        fmt::format("--stride: expected at most the {} text tokens of a window, found {}", room, stride));
  }

  const std::string text = read_text(file.value_or("-"));
  const bool parse_special = arguments.has("parse-special");
  const Plan plan = lines ? plan_lines(text, tokenizer, parse_special, bos, window)
                          : plan_windows(tokenizer.encode(text, parse_special), bos, window, stride);
  if (plan.windows.empty() || plan.windows.front().tokens().size() < 2) {
    throw std::runtime_error(fmt::format("{}: expected a text of at least 2 tokens, found {}",
                                         file.value_or("stdin"), plan.text_tokens));
  }

  const size_t vocabulary = static_cast<size_t>(model.hyperparameters().vocabulary);
  const size_t chunk = std::clamp<size_t>(kMostLogitBytes / (vocabulary * sizeof(float)), 1, 512);
  options.context = window;
  options.batch = chunk;
  options.max_outputs = chunk;
  const std::unique_ptr<Session> session = open_session(model, options);
  const Sums sums = evaluate(*session, plan.windows, vocabulary, chunk);

  std::string how =
      lines ? fmt::format("{} lines, each a text of its own", plan.windows.size())
            : fmt::format("{} window{} of {} tokens", plan.windows.size(),
                          plan.windows.size() == 1 ? "" : "s", plan.windows.front().tokens().size());
  if (!lines) {
    how += stride == room ? ", not overlapping"
                          : fmt::format(", {} tokens apart, each token scored once", stride);
  }
  how += bos                       ? ", each begun with the begin token"
         : lines || stride == room ? ", the first token of each unscored"
                                   : ", the first token of the text unscored";
  how += fmt::format("; {} of {} text tokens scored", sums.count, plan.text_tokens);
  if (plan.left_out > 0) {
    how += fmt::format(", {} {} left out", plan.left_out, lines ? "beyond the window" : "at the end");
  }
  const double perplexity = std::exp(sums.mean());
  write_stdout(fmt::format("{}\nnats/token {:.5f} ± {:.5f}\nperplexity {:.4f} ± {:.4f}\n", how, sums.mean(),
                           sums.standard_error(), perplexity, perplexity * sums.standard_error()));
  return kExitDone;
}

}  // namespace tessera
