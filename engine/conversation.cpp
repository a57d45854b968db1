#include "engine/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "engine/model.h"

namespace tessera {

Conversation::Conversation(Session& session, const ConversationOptions& options)
    : session_(&session),
      options_(options),
      raw_(options.raw || !session.model().chat().can_render()),
      sequence_(session.create_sequence()) {}

Conversation::~Conversation() { session_->release(sequence_); }

size_t Conversation::first_turn() const {
  return !messages_.empty() && messages_.front().role == "system" ? 1 : 0;
}

void Conversation::set_system(std::string text) {
  assert(!raw_);
  if (first_turn() == 1) messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), ChatMessage{"system", std::move(text)});
}

void Conversation::add_user(std::string text) { messages_.push_back({"user", std::move(text)}); }

void Conversation::add_assistant(std::string text) { messages_.push_back({"assistant", std::move(text)}); }

void Conversation::clear() {
  messages_.resize(first_turn());
  dropped_ = 0;
}

bool Conversation::undo() {
  const auto last = std::find_if(messages_.rbegin(), messages_.rend(),
                                 [](const ChatMessage& message) { return message.role == "user"; });
  if (last == messages_.rend()) return false;
  messages_.erase(last.base() - 1, messages_.end());
  dropped_ = 0;  // a shorter conversation may have room for the oldest turns again
  return true;
}

bool Conversation::remove_reply() {
  if (messages_.empty() || messages_.back().role != "assistant") return false;
  messages_.pop_back();
  return true;
}

void Conversation::replace(std::vector<ChatMessage> messages) {
  messages_ = std::move(messages);
  dropped_ = 0;
}

std::vector<uint32_t> Conversation::encode_raw(std::span<const ChatMessage> messages) const {
  const Tokenizer& tokenizer = session_->model().tokenizer();
  std::string text;
  for (const ChatMessage& message : messages) text += message.content;
  std::vector<uint32_t> ids = tokenizer.encode(text, options_.parse_special);
  if (tokenizer.adds_bos() && tokenizer.bos() && (ids.empty() || ids.front() != *tokenizer.bos())) {
    ids.insert(ids.begin(), *tokenizer.bos());
  }
  return ids;
}

std::vector<uint32_t> Conversation::encode_chat(std::span<const ChatMessage> messages) const {
  const Model& model = session_->model();
  // Messages may spell a special token ("<|end|>"); only the template's own are read as such.
  return model.tokenizer().encode(model.chat().render(messages));
}

std::vector<uint32_t> Conversation::tokens_without(size_t dropped) const {
  std::vector<uint32_t> ids;
  if (dropped == 0) {
    ids = raw_ ? encode_raw(messages_) : encode_chat(messages_);
  } else {
    std::vector<ChatMessage> kept(messages_.begin(),
                                  messages_.begin() + static_cast<std::ptrdiff_t>(first_turn()));
    kept.insert(kept.end(), messages_.begin() + static_cast<std::ptrdiff_t>(first_turn() + dropped),
                messages_.end());
    ids = raw_ ? encode_raw(kept) : encode_chat(kept);
  }
  if (ids.empty()) throw std::runtime_error("the prompt has no tokens and the model adds none");
  return ids;
}

std::vector<uint32_t> Conversation::prompt_tokens() const { return tokens_without(dropped_); }

// The tokens of the prompt and of the reply so far. Where they do not fit the context and options allow it,
// the oldest turns are dropped: a quarter of the context at once, so that the next turns need not drop again.
std::vector<uint32_t> Conversation::fitting_tokens() {
  const auto with_reply = [&](size_t dropped) {
    std::vector<uint32_t> ids = tokens_without(dropped);
    ids.insert(ids.end(), reply_.begin(), reply_.end());
    return ids;
  };
  const size_t context = session_->context();
  std::vector<uint32_t> ids = with_reply(dropped_);
  if (ids.size() < context) return ids;

  if (options_.drop_oldest) {
    std::vector<size_t> cuts;  // how many messages may be dropped: up to each later user message
    for (size_t i = first_turn() + dropped_ + 1; i < messages_.size(); ++i) {
      if (messages_[i].role == "user") cuts.push_back(i - first_turn());
    }
    const size_t goal = context - context / 4;
    const auto cut = std::partition_point(cuts.begin(), cuts.end(),
                                          [&](size_t dropped) { return with_reply(dropped).size() > goal; });
    if (!cuts.empty()) {
      const size_t dropped = cut != cuts.end() ? *cut : cuts.back();
      ids = with_reply(dropped);
      if (ids.size() < context) {
        dropped_ = dropped;
        return ids;
      }
    }
  }
  throw ContextFull(fmt::format(
      "the prompt takes {} tokens and the context holds {}, one of them for the reply", ids.size(), context));
}

NextLogits Conversation::run(const SequenceInput& input) {
  if (best_ != 0 && input.logits == LogitRows::last) return {{}, session_->run_best({&input, 1}, best_)};
  return {session_->run({&input, 1}), {}};
}

NextLogits Conversation::feed(std::span<const uint32_t> tokens,
                              const std::function<bool(size_t, size_t)>& keep_going, size_t& reused) {
  const std::vector<uint32_t>& cached = session_->tokens(sequence_);
  const auto differing = std::mismatch(tokens.begin(), tokens.end(), cached.begin(), cached.end()).first;
  // The last token always runs again: its logits are what the reply begins from.
  reused = std::min(static_cast<size_t>(differing - tokens.begin()), tokens.size() - 1);
  reused = session_->truncate(sequence_, reused);

  NextLogits logits;
  const size_t chunk = std::max<size_t>(options_.chunk, 1);
  for (size_t done = reused; done < tokens.size();) {
    if (keep_going && !keep_going(done - reused, tokens.size() - reused)) return {};
    const size_t count = std::min(chunk, tokens.size() - done);
    const bool last = done + count == tokens.size();
    const SequenceInput input{sequence_, tokens.subspan(done, count),
                              last ? LogitRows::last : LogitRows::none};
    logits = run(input);
    done += count;
  }
  if (keep_going && !keep_going(tokens.size() - reused, tokens.size() - reused)) return {};
  return logits;
}

Conversation::Beginning Conversation::begin_reply(const std::function<bool(size_t, size_t)>& keep_going) {
  reply_.clear();
  Beginning beginning;
  beginning.prompt = fitting_tokens();
  beginning.logits = feed(beginning.prompt, keep_going, beginning.reused_tokens);
  return beginning;
}

std::optional<NextLogits> Conversation::extend_reply(uint32_t token,
                                                     const std::function<bool(size_t, size_t)>& keep_going) {
  reply_.push_back(token);
  if (session_->length(sequence_) < session_->context()) {
    const SequenceInput input{sequence_, {&reply_.back(), 1}, LogitRows::last};
    return run(input);
  }
  if (!options_.drop_oldest) return std::nullopt;
  try {
    const std::vector<uint32_t> tokens = fitting_tokens();
    size_t reused = 0;
    return feed(tokens, keep_going, reused);
  } catch (const ContextFull&) {
    return std::nullopt;
  }
}

size_t Conversation::dropped_turns() const {
  const auto begin = messages_.begin() + static_cast<std::ptrdiff_t>(first_turn());
  return static_cast<size_t>(
      std::count_if(begin, begin + static_cast<std::ptrdiff_t>(dropped_),
                    [](const ChatMessage& message) { return message.role == "user"; }));
}

size_t Conversation::cached_tokens() const { return session_->length(sequence_); }

}  // namespace tessera
