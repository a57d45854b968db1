// Normalizer and pre-tokenizer steps, which are applied to text before BPE, as plain data for the loaders,
// the stored form and the code that applies them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// One step that changes a whole segment (the text between two added tokens).
struct NormalizerStep {
  enum class Kind : uint8_t {
    nfc,               // Unicode canonical composition; malformed bytes stay as they are
    prepend,           // puts `text` before every segment that is not empty
    prepend_to_first,  // the same, but only where the segment begins the whole text
    replace,           // replaces every `text` by `replacement`
    collapse_spaces,   // removes spaces (U+0020) at both ends and repeated ones, as SentencePiece does
  };
  Kind kind = Kind::nfc;
  std::string text;
  std::string replacement;
};

// What a split step does with its matches: separate words, dropped, joined with neighbouring matches, or
// joined with the text before or after.
enum class SplitBehavior : uint8_t { isolated, removed, contiguous, merged_with_previous, merged_with_next };

// One step that is applied to every word that the steps before it have made.
struct PreTokenizerStep {
  enum class Kind : uint8_t {
    split_regex,     // `text` is a regular expression
    split_text,      // `text` is the text to search for
    split_digits,    // matches are single characters of general category N
    replace,         // replaces every `text` by `replacement`
    prefix,          // puts `text` before a word that does not begin with it
    prefix_to_first  // the same, but only for the word that begins the whole text
  };
  Kind kind = Kind::split_regex;
  std::string text;
  std::string replacement;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
};

// Names in the stored form, in the order of the enumerations.
inline constexpr std::array<std::string_view, 5> kNormalizerNames{"nfc", "prepend", "prepend_to_first",
                                                                  "replace", "collapse_spaces"};
inline constexpr std::array<std::string_view, 6> kPreTokenizerNames{
    "split_regex", "split_text", "split_digits", "replace", "prefix", "prefix_to_first"};
inline constexpr std::array<std::string_view, 5> kSplitBehaviorNames{
    "isolated", "removed", "contiguous", "merged_with_previous", "merged_with_next"};

// The pre-tokenizer patterns of tokenizers that ship without a tokenizer.json.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace tessera
