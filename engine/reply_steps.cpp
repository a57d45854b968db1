#include "engine/reply_steps.h"

#include <algorithm>

#include "engine/finite_logits.h"
#include "engine/model.h"

namespace tessera {

namespace {

// Tokens that end the reply: the model's own, unless they are ignored, and special tokens that are stop
// texts, which the decoded reply would not show.
std::vector<uint32_t> ids_that_end(const Model& model, const ReplyOptions& options) {
  const Tokenizer& tokenizer = model.tokenizer();
  std::vector<uint32_t> ids;
  if (!options.ignore_eos) {
    for (const EndToken& end : model.chat().end_tokens()) ids.push_back(end.id);
  }
  for (const std::string& stop : options.stops) {
    const std::optional<uint32_t> id = tokenizer.find(stop);
    if (id && tokenizer.is_special(*id)) ids.push_back(*id);
  }
  return ids;
}

}  // namespace

ReplySteps::ReplySteps(const Model& model, Sampler& sampler, const ReplyOptions& options,
                       std::span<const uint32_t> prompt, bool continues_prompt)
    : model_(model),
      sampler_(sampler),
      max_tokens_(options.max_tokens),
      end_tokens_(ids_that_end(model, options)),
      stop_rules_(options.stops),
      decoder_(model.tokenizer()) {
  // The first token of a text is decoded differently: without the space before its word.
  if (continues_prompt) decoder_.push(prompt.back());
  sampler_.reset(prompt);
}

ReplySteps::Step ReplySteps::step(const NextLogits& logits) {
  if (!all_finite(logits.all)) throw LogitsNotFinite(model_.file().path());
  Step step;
  step.token = logits.best.empty() ? sampler_.sample(logits.all) : sampler_.sample_best(logits.best);
  sampler_.accept(step.token);
  ++generated_;
  if (const std::optional<ReplyEnd> reason = reason_to_end(step.token, step.text)) {
    step.text += finish(*reason);
    step.finished = true;
  }
  return step;
}

// Adds what the token lets show to the text. Nothing: the reply goes on.
std::optional<ReplyEnd> ReplySteps::reason_to_end(uint32_t token, std::string& text) {
  if (std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end())
    return ReplyEnd::stop_token;
  const StopRules::Outcome outcome = stop_rules_.push(decoder_.push(token));
  text += outcome.text;
  if (outcome.stopped) return ReplyEnd::stop_string;
  if (max_tokens_ != 0 && generated_ >= max_tokens_) return ReplyEnd::token_limit;
  return std::nullopt;
}

std::string ReplySteps::finish(ReplyEnd reason) {
  end_ = reason;
  if (reason == ReplyEnd::stop_string) return "";
  StopRules::Outcome rest = stop_rules_.push(decoder_.finish());
  if (rest.stopped) {
    end_ = ReplyEnd::stop_string;
    return rest.text;
  }
  return rest.text + stop_rules_.finish();
}

}  // namespace tessera
