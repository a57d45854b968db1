// One reply, token by token: samples, decodes and notices the end. What computes the logits, and when, is the
// caller's: many replies can be driven in turn over one session.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/next_logits.h"
#include "engine/sampling/sampler.h"
#include "engine/sampling/stop_rules.h"
#include "engine/tokenizer/tokenizer.h"

namespace tessera {

class Model;

struct ReplyOptions {
  size_t max_tokens = 0;           // 0: until the model ends or the context is full
  bool ignore_eos = false;         // the model's end tokens do not end the reply and are not shown
  std::vector<std::string> stops;  // texts that end the reply, special tokens too; they are not part of it
};

enum class ReplyEnd { stop_token, stop_string, token_limit, context_full, interrupted };

class ReplySteps {
 public:
  // A reply that begins after the prompt's tokens, at least one. The sampler counts them as seen. With
  // continues_prompt the text goes on in the middle of the prompt's last line, instead of beginning anew.
  // Model and sampler must outlive it.
  ReplySteps(const Model& model, Sampler& sampler, const ReplyOptions& options,
             std::span<const uint32_t> prompt, bool continues_prompt);

  struct Step {
    uint32_t token = 0;     // to be run next, unless the reply has ended
    std::string text;       // more of the reply, whole UTF-8 characters; often empty
    bool finished = false;  // no further step; end() says why
  };
  // Samples the next token from the logits after all tokens so far, which are used as scratch. Throws
  // LogitsNotFinite.
  Step step(const NextLogits& logits);

  // Ends an unfinished reply for a reason that lies outside it. Returns the text that was held back until it
  // was certain; should that complete a stop string, the reply ends with it instead.
  std::string finish(ReplyEnd reason);

  ReplyEnd end() const { return end_; }                   // of a finished reply
  size_t generated_tokens() const { return generated_; }  // sampled, the end token included

 private:
  std::optional<ReplyEnd> reason_to_end(uint32_t token, std::string& text);

  const Model& model_;
  Sampler& sampler_;
  size_t max_tokens_;
  std::vector<uint32_t> end_tokens_;
  StopRules stop_rules_;
  StreamDecoder decoder_;
  size_t generated_ = 0;
  ReplyEnd end_ = ReplyEnd::stop_token;
};

}  // namespace tessera
