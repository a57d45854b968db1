// The tokens that end a reply, and what says so of each: settings may name only some of them, or the base
// model's alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

struct EndToken {
  uint32_t id = 0;
  std::string sources;  // "settings", "tokenizer", "chat template", "known name", joined by ", "
};

// Each token once: those of the settings, the tokenizer's end token, the special token with which the
// template closes an assistant's turn, and special tokens whose usual name says that they end a turn.
// behind_reply: what the template puts behind a reply, where there is a template that can render one.
std::vector<EndToken> find_end_tokens(const ChatSettings& settings, const Tokenizer& tokenizer,
                                      const std::optional<std::string>& behind_reply);

}  // namespace tessera
