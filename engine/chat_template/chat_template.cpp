#include "engine/chat_template/chat_template.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "engine/chat_template/lexer.h"
#include "engine/chat_template/renderer.h"
#include "engine/chat_template/syntax_tree.h"

namespace tessera {

namespace {

constexpr size_t kMostTemplateBytes = size_t{256} << 10;

jinja::Block parse(std::string_view source) {
  if (source.size() > kMostTemplateBytes) {
    jinja::fail_at_line(1, fmt::format("the template has {} bytes, at most {} are allowed", source.size(),
                                       kMostTemplateBytes));
  }
  const std::string normal = jinja::normalize_newlines(source);
  return jinja::parse_template(normal);
}

// The conversation as a list of dicts with the keys role and content.
jinja::Value conversation(jinja::Budget& budget, std::span<const ChatMessage> messages) {
  const jinja::Value role = jinja::make_string(budget, "role");
  const jinja::Value content = jinja::make_string(budget, "content");
  std::vector<jinja::Value> items;
  items.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    items.push_back(
        jinja::make_dict(budget, {{role, jinja::make_string(budget, message.role)},
                                  {content, jinja::make_string(budget, as_quoted(message.content))}}));
  }
  return jinja::make_list(budget, std::move(items));
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
};

ChatTemplate::ChatTemplate(std::string_view source)
    : program_(std::make_unique<Program>(Program{parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

QuotedText ChatTemplate::render(std::span<const ChatMessage> messages, const TemplateInputs& inputs) const {
  // Each message counts as 64 bytes more than its text: its dict takes memory too.
  size_t input_bytes = inputs.bos_token.size() + inputs.eos_token.size();
  for (const ChatMessage& message : messages)
    input_bytes += message.role.size() + message.content.size() + 64;
  jinja::Environment environment(input_bytes);
  environment.date = inputs.date;
  jinja::Budget& budget = environment.budget;
  std::vector<std::pair<std::string_view, jinja::Value>> variables;
  variables.emplace_back("messages", conversation(budget, messages));
  variables.emplace_back("bos_token", jinja::make_string(budget, inputs.bos_token));
  variables.emplace_back("eos_token", jinja::make_string(budget, inputs.eos_token));
  variables.emplace_back("add_generation_prompt", inputs.add_generation_prompt);
  // Templates test whether these are none; Tessera offers neither tools nor documents.
  variables.emplace_back("tools", jinja::None{});
  variables.emplace_back("documents", jinja::None{});
  return jinja::render_template(environment, program_->block, std::move(variables));
}

}  // namespace tessera
