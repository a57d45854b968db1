// Generates one reply to a conversation, and measures how long it takes.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/conversation.h"
#include "engine/reply_steps.h"
#include "engine/sampling/sampler.h"

namespace tessera {

struct ReplyStatistics {
  size_t prompt_tokens = 0;        // in the whole prompt
  size_t read_tokens = 0;          // of these, in the cache when the reply began, or was interrupted before
  size_t reused_tokens = 0;        // of these, found in the cache
  size_t generated_tokens = 0;     // sampled, the end token included
  size_t dropped_turns = 0;        // user turns left out because the context is full
  double prompt_seconds = 0;       // from the start to the prompt's logits, or to the interruption
  double first_token_seconds = 0;  // from the start to the first sampled token; 0 when there was none
  double generate_seconds = 0;     // from the first sampled token to the end
  size_t cached_tokens = 0;        // KV cache in use afterwards
  size_t context = 0;

  double prompt_rate() const;    // tokens per second of those that were not in the cache; 0 when unknown
  double generate_rate() const;  // tokens per second after the first
};

struct Reply {
  std::string text;  // all that was shown
  ReplyEnd end = ReplyEnd::stop_token;
  ReplyStatistics statistics;
};

struct ReplyEvents {
  std::function<void(std::string_view)> text;  // more of the reply, whole UTF-8 characters
  std::function<bool()> interrupted;           // true ends the reply; called before every run
  // Prompt tokens that were run, out of those to be run; from 0 again when the context became full during the
  // reply and the prompt is read again without the oldest turns.
  std::function<void(size_t, size_t)> prompt_progress;
};

// Replies to the conversation's messages, without adding to them. The sampler counts the prompt's tokens as
// seen. Throws ContextFull when not even the prompt fits, TemplateError, and what the session throws.
Reply generate_reply(Conversation& conversation, Sampler& sampler, const ReplyOptions& options,
                     const ReplyEvents& events);

}  // namespace tessera
