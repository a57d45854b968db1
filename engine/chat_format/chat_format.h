// How a model's conversations become prompts: its chat template, and what rendering short conversations with
// it finds out.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/chat_format/end_tokens.h"
#include "engine/chat_template/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

// Immutable.
class ChatFormat {
 public:
  // source: the template's text, empty for none. Never throws for what it says: see fault() and
  // question_fault().
  ChatFormat(const std::string& source, const ChatSettings& settings, const Tokenizer& tokenizer);

  // Whether there is a template that could be read.
  bool can_render() const { return template_.has_value(); }
  // Why the template could not be read; empty when it could, or when there is none.
  const std::string& fault() const { return fault_; }
  // Why a conversation of one question cannot be rendered; empty when it can.
  const std::string& question_fault() const { return question_fault_; }
  // Whether the template shows system messages. render puts those of other templates before the first message
  // of the user, two newlines between them.
  bool takes_system() const { return takes_system_; }
  // The tokens that end a reply.
  std::span<const EndToken> end_tokens() const { return end_tokens_; }

  // The prompt for a reply after these messages, whose bytes are quoted in it. can_render() must hold. Throws
  // TemplateError.
  QuotedText render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

 private:
  QuotedText render_as_given(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  bool shows_system() const;
  std::optional<std::string> rendered_reply() const;

  std::optional<ChatTemplate> template_;
  std::string fault_;
  std::string question_fault_;
  TemplateInputs inputs_;
  bool takes_system_ = true;
  std::vector<EndToken> end_tokens_;
};

}  // namespace tessera
