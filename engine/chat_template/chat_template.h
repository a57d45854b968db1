// Renders a conversation by a model's own Jinja template: the subset of Jinja that real chat templates use,
// with bounded loops, recursion and output. Immutable after construction.
#pragma once

#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "engine/chat_template/quoted_text.h"

namespace tessera {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// A template that cannot be parsed or rendered: one line with the template's line number.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& line) : std::runtime_error(line) {}
};

struct TemplateInputs {
  std::string bos_token;
  std::string eos_token;
  bool add_generation_prompt = true;
  std::string date;  // what strftime_now gives, "26 Jul 2024" style; empty: today
};

class ChatTemplate {
 public:
  explicit ChatTemplate(std::string_view source);  // parses; throws TemplateError
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The prompt, in which everything that the contents of messages supplied is quoted. Throws TemplateError.
  QuotedText render(std::span<const ChatMessage> messages, const TemplateInputs& inputs) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
};

}  // namespace tessera
