#include "engine/chat_format/end_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace tessera {

namespace {

// Of ChatML, Llama 3, Gemma, Phi and OpenChat.
constexpr std::array<std::string_view, 6> kKnownNames = {"<|im_end|>",    "<|eot_id|>", "<|eom_id|>",
                                                         "<end_of_turn>", "<|end|>",    "<|end_of_turn|>"};

// The special token that a text begins with, spaces aside.
std::optional<uint32_t> first_special(const Tokenizer& tokenizer, const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return std::nullopt;
  const std::vector<uint32_t> ids = tokenizer.encode(text.substr(begin), true);
  const bool special = !ids.empty() && tokenizer.is_special(ids.front());
  return special ? std::optional(ids.front()) : std::nullopt;
}

}  // namespace

std::vector<EndToken> find_end_tokens(const ChatSettings& settings, const Tokenizer& tokenizer,
                                      const std::optional<std::string>& behind_reply) {
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
  if (behind_reply)
    if (const std::optional<uint32_t> id = first_special(tokenizer, *behind_reply)) add(*id, "chat template");
  for (const std::string_view name : kKnownNames) {
    const std::optional<uint32_t> id = tokenizer.find(name);
    if (id && tokenizer.is_special(*id)) add(*id, "known name");
  }
  return ends;
}

}  // namespace tessera
