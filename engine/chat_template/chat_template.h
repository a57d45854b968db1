// Turns a conversation into a prompt with the Jinja template that comes with a model. Supports the subset of
// Jinja that real chat templates use; work, recursion and memory are limited. A template is immutable after
// construction.
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

// A template cannot be parsed or rendered. The message is one line and begins with the template's line
// number.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& line) : std::runtime_error(line) {}
};

struct TemplateInputs {
  std::string bos_token;
  std::string eos_token;
  bool add_generation_prompt = true;
  std::string date;  // what strftime_now returns, whatever its format; empty: the current time
};

class ChatTemplate {
 public:
  // Parses the template; the source is not needed afterwards. Throws TemplateError.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // Renders the prompt, in which all bytes that come from the contents of messages are quoted. Throws
  // TemplateError.
  QuotedText render(std::span<const ChatMessage> messages, const TemplateInputs& inputs) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
};

}  // namespace tessera
