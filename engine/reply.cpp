#include "engine/reply.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/model.h"
#include "engine/sampling/stop_rules.h"

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Tokens that end the reply: the model's own, unless they are passed over, and special tokens that are stop
// texts, which the decoded reply would not show.
std::vector<uint32_t> end_tokens(const Model& model, const ReplyOptions& options) {
  const Tokenizer& tokenizer = model.tokenizer();
  std::vector<uint32_t> ids;
  if (!options.ignore_eos) {
    ids = model.header().chat.stop_tokens;
    if (const std::optional<uint32_t> eos = tokenizer.eos()) ids.push_back(*eos);
  }
  for (const std::string& stop : options.stops) {
    const std::optional<uint32_t> id = tokenizer.find(stop);
    if (id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace

double ReplyStatistics::prompt_rate() const {
  const auto fed = static_cast<double>(prompt_tokens - reused_tokens);
  return prompt_seconds > 0 ? fed / prompt_seconds : 0;
}

double ReplyStatistics::generate_rate() const {
  return generated_tokens > 1 && generate_seconds > 0
             ? static_cast<double>(generated_tokens - 1) / generate_seconds
             : 0;
}

Reply generate_reply(Conversation& conversation, Sampler& sampler, const ReplyOptions& options,
                     const ReplyEvents& events) {
  const Model& model = conversation.session().model();
  const std::vector<uint32_t> ends = end_tokens(model, options);
  StopRules stop_rules(options.stops);
  StreamDecoder decoder(model.tokenizer());
  Reply reply;
  ReplyStatistics& statistics = reply.statistics;
  statistics.context = conversation.session().context();

  const auto show = [&](const std::string& text) {
    if (text.empty()) return;
    reply.text += text;
    if (events.text) events.text(text);
  };
  const auto interrupted = [&] { return events.interrupted && events.interrupted(); };

  conversation.want_best(sampler.candidates_needed());
  const Clock::time_point start = Clock::now();
  const auto keep_reading = [&](size_t done, size_t total) {
    if (events.prompt_progress) events.prompt_progress(done, total);
    return !interrupted();
  };
  const Conversation::Beginning beginning = conversation.begin_reply(keep_reading);
  statistics.prompt_tokens = beginning.prompt.size();
  statistics.reused_tokens = beginning.reused_tokens;
  statistics.prompt_seconds = seconds_since(start);
  // A continued text goes on in the middle of a line: the decoder must not treat the first token as a start.
  if (conversation.raw()) decoder.push(beginning.prompt.back());
  sampler.reset(beginning.prompt);

  std::optional<NextLogits> logits;
  if (beginning.logits.empty()) {
    reply.end = ReplyEnd::interrupted;
  } else {
    logits = beginning.logits;
  }
  Clock::time_point first_token = Clock::now();
  while (logits) {
    const uint32_t token =
        logits->best.empty() ? sampler.sample(logits->all) : sampler.sample_best(logits->best);
    sampler.accept(token);
    if (++statistics.generated_tokens == 1) {
      first_token = Clock::now();
      statistics.first_token_seconds = seconds_since(start);
    }
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      reply.end = ReplyEnd::stop_token;
      break;
    }
    const StopRules::Outcome outcome = stop_rules.push(decoder.push(token));
    show(outcome.text);
    if (outcome.stopped) {
      reply.end = ReplyEnd::stop_string;
      break;
    }
    if (options.max_tokens != 0 && statistics.generated_tokens >= options.max_tokens) {
      reply.end = ReplyEnd::token_limit;
      break;
    }
    if (interrupted()) {
      reply.end = ReplyEnd::interrupted;
      break;
    }
    logits = conversation.extend_reply(token, keep_reading);
    if (!logits) {
      reply.end = ReplyEnd::context_full;
    } else if (logits->empty()) {
      reply.end = ReplyEnd::interrupted;
      break;
    }
  }
  if (reply.end != ReplyEnd::stop_string) {
    const StopRules::Outcome outcome = stop_rules.push(decoder.finish());
    show(outcome.text);
    if (outcome.stopped) {
      reply.end = ReplyEnd::stop_string;
    } else {
      show(stop_rules.finish());
    }
  }
  statistics.generate_seconds = statistics.generated_tokens > 0 ? seconds_since(first_token) : 0;
  statistics.cached_tokens = conversation.cached_tokens();
  statistics.dropped_turns = conversation.dropped_turns();
  return reply;
}

}  // namespace tessera
