// A conversation over one session: keeps the messages, renders them with the model's chat template and runs
// only the tokens that the cache does not hold yet. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/chat_template/chat_template.h"
#include "engine/next_logits.h"
#include "engine/session.h"

namespace tessera {

// The messages do not fit the context, and no more of them may be left out. One line with the numbers.
class ContextFull : public std::runtime_error {
 public:
  explicit ContextFull(const std::string& line) : std::runtime_error(line) {}
};

struct ConversationOptions {
  bool raw = false;            // continue the text as it is, even when the model has a chat template
  bool parse_special = false;  // special tokens that raw text spells are read as such
  bool drop_oldest = false;    // a full context drops the oldest turns instead of ending the reply
  size_t chunk = 512;          // prompt tokens between two calls of keep_going
};

class Conversation {
 public:
  // Creates a sequence of the session, which must outlive the conversation.
  Conversation(Session& session, const ConversationOptions& options);
  ~Conversation();
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  Session& session() const { return *session_; }
  bool raw() const { return raw_; }
  const std::vector<ChatMessage>& messages() const { return messages_; }

  // The system message comes first or not at all; an empty text removes it. Not for raw conversations.
  void set_system(std::string text);
  void add_user(std::string text);
  void add_assistant(std::string text);
  void clear();         // all but the system message
  bool undo();          // removes the last user message and what came after it; false when there is none
  bool remove_reply();  // removes the last message when it is the assistant's; false otherwise
  // The system message comes first or not at all, then user and assistant alternate.
  void replace(std::vector<ChatMessage> messages);

  // The tokens of all messages, rendered for a reply to begin after them. Throws TemplateError.
  std::vector<uint32_t> prompt_tokens() const;

  struct Beginning {
    NextLogits logits;             // of the last prompt token; empty when keep_going returned false
    std::vector<uint32_t> prompt;  // at least one token
    size_t reused_tokens = 0;      // of these, already in the cache
  };
  // From now on logits are only the `count` best of a row, or all: with 0, and where the backend cannot
  // select.
  void select_best(size_t count) { best_ = session_->gives_best(count) ? count : 0; }
  // Brings the session to the end of the prompt. Cached tokens that agree with the prompt are kept and all
  // others are run, so the result is that of a fresh session. keep_going(done, total) is called between
  // chunks; false stops there and leaves a valid, shorter cache. Throws ContextFull or TemplateError.
  Beginning begin_reply(const std::function<bool(size_t, size_t)>& keep_going);

  // Appends a token of the reply and returns the logits after it; nothing when the context is full and no
  // turn may be dropped. After dropping a turn the shorter conversation and the reply so far are read again;
  // keep_going is called as in begin_reply, and the logits are empty when it returned false.
  std::optional<NextLogits> extend_reply(uint32_t token,
                                         const std::function<bool(size_t, size_t)>& keep_going);
  size_t dropped_turns() const;  // user turns that the model no longer reads
  size_t cached_tokens() const;  // tokens of this conversation in the KV cache

 private:
  std::vector<uint32_t> tokens_without(size_t dropped) const;
  std::vector<uint32_t> encode_raw(std::span<const ChatMessage> messages) const;
  std::vector<uint32_t> encode_chat(std::span<const ChatMessage> messages) const;
  std::vector<uint32_t> fitting_tokens();
  size_t first_turn() const;  // index of the first message that is not the system's
  NextLogits feed(std::span<const uint32_t> tokens, const std::function<bool(size_t, size_t)>& keep_going,
                  size_t& reused);
  NextLogits run(const SequenceInput& input);

  Session* session_;
  ConversationOptions options_;
  bool raw_;
  SequenceId sequence_;
  std::vector<ChatMessage> messages_;
  size_t best_ = 0;              // how many of the best logits are selected; 0: all are given
  size_t dropped_ = 0;           // messages after the system's that are left out
  std::vector<uint32_t> reply_;  // tokens of the reply in progress
};

}  // namespace tessera
