#include "engine/reply.h"

#include <chrono>
#include <optional>

namespace tessera {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

double ReplyStatistics::prompt_rate() const {
  const auto fed = static_cast<double>(read_tokens - reused_tokens);
  return prompt_seconds > 0 ? fed / prompt_seconds : 0;
}

double ReplyStatistics::generate_rate() const {
  return generated_tokens > 1 && generate_seconds > 0
             ? static_cast<double>(generated_tokens - 1) / generate_seconds
             : 0;
}

Reply generate_reply(Conversation& conversation, Sampler& sampler, const ReplyOptions& options,
                     const ReplyEvents& events) {
  Reply reply;
  ReplyStatistics& statistics = reply.statistics;
  statistics.context = conversation.session().context();
  const auto show = [&](const std::string& text) {
    if (text.empty()) return;
    reply.text += text;
    if (events.text) events.text(text);
  };
  const auto interrupted = [&] { return events.interrupted && events.interrupted(); };
  const auto keep_reading = [&](size_t done, size_t total) {
    if (events.prompt_progress) events.prompt_progress(done, total);
    return !interrupted();
  };

  conversation.select_best(sampler.candidates_needed());
  const Clock::time_point start = Clock::now();
  const Conversation::Beginning beginning = conversation.begin_reply(keep_reading);
  statistics.prompt_tokens = beginning.prompt.size();
  statistics.read_tokens = conversation.cached_tokens();
  statistics.reused_tokens = beginning.reused_tokens;
  statistics.prompt_seconds = seconds_since(start);

  ReplySteps steps(conversation.session().model(), sampler, options, beginning.prompt, conversation.raw());
  Clock::time_point first_token = Clock::now();
  // Nothing when the context is full, empty when the reply is interrupted.
  std::optional<NextLogits> logits = beginning.logits;
  for (;;) {
    if (!logits || logits->empty()) {
      show(steps.finish(logits ? ReplyEnd::interrupted : ReplyEnd::context_full));
      break;
    }
    const ReplySteps::Step step = steps.step(*logits);
    if (steps.generated_tokens() == 1) {
      first_token = Clock::now();
      statistics.first_token_seconds = seconds_since(start);
    }
    show(step.text);
    if (step.finished) break;
    logits = interrupted() ? NextLogits() : conversation.extend_reply(step.token, keep_reading);
  }
  reply.end = steps.end();
  statistics.generated_tokens = steps.generated_tokens();
  statistics.generate_seconds = statistics.generated_tokens > 0 ? seconds_since(first_token) : 0;
  statistics.cached_tokens = conversation.cached_tokens();
  statistics.dropped_turns = conversation.dropped_turns();
  return reply;
}

}  // namespace tessera
