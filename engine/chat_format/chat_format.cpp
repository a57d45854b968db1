#include "engine/chat_format/chat_format.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

namespace tessera {

namespace {

constexpr std::string_view kQuestion = "a question";
constexpr std::string_view kReply = "what the assistant said";
constexpr std::string_view kSystem = "what the system says";

ChatMessage message(const char* role, std::string_view content) { return {role, std::string(content)}; }

}  // namespace

ChatFormat::ChatFormat(const std::string& source, const ChatSettings& settings, const Tokenizer& tokenizer) {
  inputs_.bos_token = tokenizer.special_text("bos");
  inputs_.eos_token = tokenizer.special_text("eos");
  if (!source.empty()) {
    try {
      template_.emplace(source);
      render_as_given(std::array{message("user", kQuestion)}, true);
    } catch (const TemplateError& error) {
      (template_ ? question_fault_ : fault_) = error.what();
    }
  }
  std::optional<std::string> behind_reply;
  if (template_) {
    takes_system_ = !question_fault_.empty() || shows_system();
    behind_reply = rendered_reply();
  }
  end_tokens_ = find_end_tokens(settings, tokenizer, behind_reply);
}

bool ChatFormat::shows_system() const {
  try {
    const QuotedText prompt =
        render_as_given(std::array{message("system", kSystem), message("user", kQuestion)}, true);
    return prompt.text.find(kSystem) != std::string::npos;
  } catch (const TemplateError&) {
    return false;
  }
}

// What the template puts behind a reply; nothing where it cannot render one.
std::optional<std::string> ChatFormat::rendered_reply() const {
  try {
    const std::string text =
        render_as_given(std::array{message("user", kQuestion), message("assistant", kReply)}, false).text;
    const size_t reply = text.rfind(kReply);
    if (reply != std::string::npos) return text.substr(reply + kReply.size());
  } catch (const TemplateError&) {
  }
  return std::nullopt;
}

QuotedText ChatFormat::render_as_given(std::span<const ChatMessage> messages,
                                       bool add_generation_prompt) const {
  TemplateInputs inputs = inputs_;
  inputs.add_generation_prompt = add_generation_prompt;
  return template_->render(messages, inputs);
}

QuotedText ChatFormat::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  if (takes_system_ || messages.empty() || messages.front().role != "system")
    return render_as_given(messages, add_generation_prompt);
  std::vector<ChatMessage> merged(messages.begin() + 1, messages.end());
  const std::string& system = messages.front().content;
  if (merged.empty() || merged.front().role != "user") {
    merged.insert(merged.begin(), message("user", system));
  } else {
    merged.front().content = system + "\n\n" + merged.front().content;
  }
  return render_as_given(merged, add_generation_prompt);
}

}  // namespace tessera
