#include "engine/tokenizer/gguf_pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/tokenizer/text_rules.h"

namespace tessera {

namespace {

using Pattern = std::string_view;

constexpr Pattern kOneDigit = R"(\p{N})";
// Words that begin with capitals are cut where small letters end: U* D+ or U+ D*.
constexpr Pattern kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                            R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                            R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// The same with endings such as 's kept at their words and up to three digits together.
constexpr Pattern kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array kLlama3Rules{kLlama3Pattern};
constexpr std::array kQwen2Rules{kQwen2Pattern};
constexpr std::array kGpt2Rules{kGpt2Pattern};
constexpr std::array kDigitRules{kOneDigit, kGpt2Pattern};
constexpr std::array kTekkenRules{kTekken};
constexpr std::array kGpt4oRules{kGpt4o};
constexpr std::array kFalconRules{Pattern(R"([\p{P}\$\+<=>\^~\|\x60]+)"), kGpt2Pattern,
                                  Pattern("[0-9][0-9][0-9]")};
constexpr std::array kDefaultRules{Pattern(R"([\p{P}\$\+<=>\^~\|]+)"), kGpt2Pattern, Pattern(R"(\p{N}+)"),
                                   Pattern("[0-9][0-9][0-9]")};

// Columns: name, patterns, ignore_merges, adds_bos, composes.
constexpr std::array kRows = {
    GgufPreTokenizer{"llama-bpe", kLlama3Rules, true, true, false},
    GgufPreTokenizer{"llama3", kLlama3Rules, true, true, false},
    GgufPreTokenizer{"llama-v3", kLlama3Rules, true, true, false},
    GgufPreTokenizer{"falcon3", kLlama3Rules, true, true, false},
    GgufPreTokenizer{"pixtral", kLlama3Rules, true, true, false},
    GgufPreTokenizer{"dbrx", kLlama3Rules, false, false, false},
    GgufPreTokenizer{"smaug-bpe", kLlama3Rules, false, false, false},
    GgufPreTokenizer{"chatglm-bpe", kLlama3Rules, false, false, false},
    GgufPreTokenizer{"glm4", kLlama3Rules, true, false, false},
    GgufPreTokenizer{"qwen2", kQwen2Rules, false, false, true},
    GgufPreTokenizer{"deepseek-r1-qwen", kQwen2Rules, false, false, true},
    GgufPreTokenizer{"stablelm2", kQwen2Rules, false, false, false},
    GgufPreTokenizer{"gpt-2", kGpt2Rules, false, false, false},
    GgufPreTokenizer{"phi-2", kGpt2Rules, false, false, false},
    GgufPreTokenizer{"mpt", kGpt2Rules, false, false, false},
    GgufPreTokenizer{"olmo", kGpt2Rules, false, false, false},
    GgufPreTokenizer{"smollm", kDigitRules, false, false, false},
    GgufPreTokenizer{"starcoder", kDigitRules, false, false, false},
    GgufPreTokenizer{"refact", kDigitRules, false, false, false},
    GgufPreTokenizer{"command-r", kDigitRules, false, false, false},
    GgufPreTokenizer{"codeshell", kDigitRules, false, false, false},
    GgufPreTokenizer{"tekken", kTekkenRules, true, true, false},
    GgufPreTokenizer{"gpt-4o", kGpt4oRules, false, false, false},
    GgufPreTokenizer{"falcon", kFalconRules, false, false, false},
    GgufPreTokenizer{"default", kDefaultRules, false, false, false},
};

}  // namespace

const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  const auto found = std::find_if(kRows.begin(), kRows.end(),
                                  [&](const GgufPreTokenizer& each) { return each.name == name; });
  return found == kRows.end() ? nullptr : &*found;
}

std::string known_gguf_pre_tokenizers() {
  std::string names;
  for (const GgufPreTokenizer& row : kRows) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  return names;
}

}  // namespace tessera
