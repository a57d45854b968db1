#include "engine/end_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace tessera {

namespace {

// Of ChatML, Llama 3, Gemma, Phi and OpenChat.
constexpr std::array<std::string_view, 6> kKnownNames = {"<|im_end|>",    "<|eot_id|>", "<|eom_id|>",
                                                         "<end_of_turn>", "<|end|>",    "<|end_of_turn|>"};

// The special token directly behind what an assistant said, spaces aside.
std::optional<uint32_t> closing_token(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  constexpr std::string_view kReply = "what the assistant said";
  const std::array<ChatMessage, 2> messages = {ChatMessage{"user", "a question"},
                                               ChatMessage{"assistant", std::string(kReply)}};
  TemplateInputs inputs;
  inputs.bos_token = tokenizer.special_text("bos");
  inputs.eos_token = tokenizer.special_text("eos");
  inputs.add_generation_prompt = false;
  std::string text;
  try {
    text = chat_template.render(messages, inputs).text;
  } catch (const TemplateError&) {
    return std::nullopt;  // chats will say why
  }
  const size_t reply = text.rfind(kReply);
  if (reply == std::string::npos) return std::nullopt;
  const size_t begin = text.find_first_not_of(" \t\r\n", reply + kReply.size());
  if (begin == std::string::npos) return std::nullopt;
  const std::vector<uint32_t> ids = tokenizer.encode(text.substr(begin), true);
  const bool closes = !ids.empty() && tokenizer.is_special(ids.front());
  return closes ? std::optional(ids.front()) : std::nullopt;
}

}  // namespace

std::vector<EndToken> end_tokens(const ChatSettings& settings, const Tokenizer& tokenizer,
                                 const ChatTemplate* chat_template) {
  std::vector<EndToken> ends;
  const auto add = [&](uint32_t id, const char* source) {
    const auto known =
        std::find_if(ends.begin(), ends.end(), [id](const EndToken& end) { return end.id == id; });
    if (known == ends.end()) {
      ends.push_back({id, source});
    } else {
      known->sources += std::string(", ") + source;
    }
  };
  for (const uint32_t id : settings.stop_tokens) add(id, "settings");
  if (const std::optional<uint32_t> eos = tokenizer.eos()) add(*eos, "tokenizer");
  if (chat_template != nullptr)
    if (const std::optional<uint32_t> id = closing_token(tokenizer, *chat_template))
      add(*id, "chat template");
  for (const std::string_view name : kKnownNames) {
    const std::optional<uint32_t> id = tokenizer.find(name);
    if (id && tokenizer.is_special(*id)) add(*id, "known name");
  }
  return ends;
}

}  // namespace tessera
