#include "engine/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "engine/model.h"

namespace tessera {

namespace {

// Messages may spell a special token ("<|end|>"), and after rendering that text would look like the
// template's own. So a noncharacter is put behind the first character of every such spelling before the
// template runs; it survives the template's filters, keeps the spelling from matching, and is taken out again
// once the rendered text has been split at the template's special tokens.
std::string noncharacter(size_t index) {
  const std::string_view prefix = "\xEF\xB7";  // U+FDD0 … U+FDEF are 32 noncharacters: EF B7 90 … AF
  return std::string(prefix) + static_cast<char>(0x90 + index % 32);
}

// A marker that no message contains: one noncharacter, or else a pair of different ones.
std::string choose_marker(std::span<const ChatMessage> messages) {
  const auto unused = [&](const std::string& marker) {
    return std::none_of(messages.begin(), messages.end(), [&](const ChatMessage& message) {
      return message.content.find(marker) != std::string::npos;
    });
  };
  for (size_t first = 0; first < 32; ++first) {
    if (unused(noncharacter(first))) return noncharacter(first);
  }
  for (size_t first = 0; first < 32; ++first) {
    for (size_t second = first + 1; second < 32; ++second) {
      // Two different halves: wherever such a pair is put, the first match from the left is the pair itself.
      const std::string marker = noncharacter(first) + noncharacter(second);
      if (unused(marker)) return marker;
    }
  }
  throw TemplateError("the messages contain every Unicode noncharacter; none is left to mark text with");
}

std::string without(std::string_view text, std::string_view marker) {
  std::string result;
  result.reserve(text.size());
  size_t begin = 0;
  for (size_t at = text.find(marker); at != std::string_view::npos; at = text.find(marker, begin)) {
    result += text.substr(begin, at - begin);
    begin = at + marker.size();
  }
  result += text.substr(begin);
  return result;
}

size_t first_character_bytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  return std::min(bytes, text.size());
}

}  // namespace

Conversation::Conversation(Session& session, const ConversationOptions& options)
    : session_(&session),
      options_(options),
      raw_(options.raw || session.model().chat_template() == nullptr),
      sequence_(session.create_sequence()),
      special_by_byte_(256) {
  if (raw_) return;
  const Tokenizer& tokenizer = session.model().tokenizer();
  const auto vocabulary = static_cast<uint32_t>(tokenizer.vocabulary());
  for (uint32_t id = 0; id < vocabulary; ++id) {
    if (!tokenizer.is_special(id)) continue;
    std::string text = tokenizer.token_bytes(id, true);
    if (text.empty()) continue;
    const auto first = static_cast<unsigned char>(text.front());
    special_by_byte_[first].emplace_back(std::move(text), id);
  }
  for (auto& texts : special_by_byte_) {
    std::stable_sort(texts.begin(), texts.end(),
                     [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  }
}

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

std::pair<size_t, uint32_t> Conversation::special_at(std::string_view text, size_t at) const {
  for (const auto& [special, id] : special_by_byte_[static_cast<unsigned char>(text[at])]) {
    if (text.substr(at, special.size()) == special) return {special.size(), id};
  }
  return {0, 0};
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
  const Tokenizer& tokenizer = model.tokenizer();

  std::string marker;
  std::vector<ChatMessage> marked(messages.begin(), messages.end());
  for (ChatMessage& message : marked) {
    std::string content;
    size_t copied = 0;
    for (size_t at = 0; at < message.content.size(); ++at) {
      const auto [length, id] = special_at(message.content, at);
      if (length == 0) continue;
      if (marker.empty()) marker = choose_marker(messages);
      const size_t end = at + first_character_bytes(std::string_view(message.content).substr(at));
      content.append(message.content, copied, end - copied);
      content += marker;
      copied = end;
      at = end - 1;
    }
    if (copied == 0) continue;
    content.append(message.content, copied);
    message.content = std::move(content);
  }

  TemplateInputs inputs;
  inputs.bos_token = tokenizer.special_text("bos");
  inputs.eos_token = tokenizer.special_text("eos");
  const std::string rendered = model.chat_template()->render(marked, inputs);
  if (marker.empty()) return tokenizer.encode(rendered, true);

  // Stretches between special tokens that hold a marker are encoded as ordinary text without it; all the rest
  // is encoded as it stands, special tokens included.
  std::vector<uint32_t> ids;
  const auto append = [&](const std::vector<uint32_t>& more) {
    ids.insert(ids.end(), more.begin(), more.end());
  };
  const std::string_view text = rendered;
  size_t unencoded = 0;
  size_t stretch = 0;
  for (size_t at = 0; at <= text.size();) {
    const size_t length = at < text.size() ? special_at(text, at).first : 0;
    if (at < text.size() && length == 0) {
      ++at;
      continue;
    }
    const std::string_view ordinary = text.substr(stretch, at - stretch);
    if (ordinary.find(marker) != std::string_view::npos) {
      append(tokenizer.encode(text.substr(unencoded, stretch - unencoded), true));
      append(tokenizer.encode(without(ordinary, marker), false));
      unencoded = at;
    }
    if (at == text.size()) break;
    at += length;
    stretch = at;
  }
  append(tokenizer.encode(text.substr(unencoded), true));
  return ids;
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

// The prompt and the reply so far, after as much dropping as options allow and the context needs. Dropping
// makes room for a quarter of the context at once, so that the next turns do not have to drop again.
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
  if (best_ != 0 && input.want == SequenceInput::Want::last)
    return {{}, session_->run_best({&input, 1}, best_)};
  return {session_->run({&input, 1}), {}};
}

NextLogits Conversation::feed(std::span<const uint32_t> tokens,
                              const std::function<bool(size_t, size_t)>& keep_going, size_t& reused) {
  const std::vector<uint32_t>& cached = session_->tokens(sequence_);
  const auto differing = std::mismatch(tokens.begin(), tokens.end(), cached.begin(), cached.end()).first;
  // The last token always runs again: its logits are what the reply begins from.
  reused = std::min(static_cast<size_t>(differing - tokens.begin()), tokens.size() - 1);
  session_->truncate(sequence_, reused);

  NextLogits logits;
  const size_t chunk = std::max<size_t>(options_.chunk, 1);
  for (size_t done = reused; done < tokens.size();) {
    if (keep_going && !keep_going(done - reused, tokens.size() - reused)) return {};
    const size_t count = std::min(chunk, tokens.size() - done);
    const bool last = done + count == tokens.size();
    const SequenceInput input{sequence_, tokens.subspan(done, count),
                              last ? SequenceInput::Want::last : SequenceInput::Want::none};
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
    const SequenceInput input{sequence_, {&reply_.back(), 1}, SequenceInput::Want::last};
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
