#include "engine/tokenizer/pre_tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/split_pattern.h"
#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

using Word = WordList::Word;

// Splits a text into runs of well-formed UTF-8 and the single bytes between them.
std::vector<Word> cut_at_malformed(std::string_view text) {
  std::vector<Word> words;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = read_utf8(text, at);
    if (character.state != Utf8Character::State::complete) {
      if (begin < at) words.push_back({text.substr(begin, at - begin), false});
      for (size_t i = 0; i < character.length; ++i) words.push_back({text.substr(at + i, 1), true});
      begin = at + character.length;
    }
    at += character.length;
  }
  if (begin < text.size()) words.push_back({text.substr(begin), false});
  return words;
}

std::vector<TextPart> find_text(std::string_view text, std::string_view wanted) {
  std::vector<TextPart> parts;
  size_t begin = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, begin)) {
    if (begin < at) parts.push_back({begin, at, false});
    parts.push_back({at, at + wanted.size(), true});
    begin = at + wanted.size();
  }
  if (begin < text.size()) parts.push_back({begin, text.size(), false});
  return parts;
}

bool is_number(uint32_t codepoint) {
  if (codepoint < 0x80) return codepoint >= '0' && codepoint <= '9';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codepoint));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

std::vector<TextPart> find_digits(std::string_view text) {
  std::vector<TextPart> parts;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = read_utf8(text, at);
    const size_t end = at + character.length;
    if (is_number(character.codepoint)) {
      if (begin < at) parts.push_back({begin, at, false});
      parts.push_back({at, end, true});
      begin = end;
    }
    at = end;
  }
  if (begin < text.size()) parts.push_back({begin, text.size(), false});
  return parts;
}

// Turns the parts of a word into words, as the step's behavior says. Empty parts are dropped.
void append_parts(std::vector<Word>& words, std::string_view text, std::vector<TextPart>& parts,
                  const PreTokenizerStep& step) {
  if (step.invert)
    for (TextPart& part : parts) part.match = !part.match;
  std::vector<TextPart> kept;
  const bool backwards = step.behavior == SplitBehavior::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  bool previous = false;  // whether the part before this one, in the direction of the loop, was a match
  for (const TextPart& part : parts) {
    bool join = false;
    switch (step.behavior) {
      case SplitBehavior::isolated:
        break;
      case SplitBehavior::removed:
        if (part.match) continue;
        break;
      case SplitBehavior::contiguous:
        join = part.match == previous;
        break;
      case SplitBehavior::merged_with_previous:
      case SplitBehavior::merged_with_next:
        join = part.match && !previous;
        break;
    }
    previous = part.match;
    if (!join || kept.empty()) {
      kept.push_back(part);
    } else if (backwards) {
      kept.back().begin = part.begin;
    } else {
      kept.back().end = part.end;
    }
  }
  if (backwards) std::reverse(kept.begin(), kept.end());
  for (const TextPart& part : kept)
    if (part.begin < part.end) words.push_back({text.substr(part.begin, part.end - part.begin), false});
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& where)
    : steps_(std::move(steps)) {
  for (const PreTokenizerStep& step : steps_) {
    const bool expression = step.kind == PreTokenizerStep::Kind::split_regex;
    compiled_.push_back(expression ? std::make_unique<const SplitPattern>(step.text, where) : nullptr);
  }
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;

WordList PreTokenizer::split(std::string_view segment, bool at_start) const {
  WordList list;
  list.words = cut_at_malformed(segment);
  size_t left = most_rewritten_bytes(segment.size());  // bytes that all steps together may still write
  const auto keep = [&](std::string changed) {
    check_rewritten(changed.size(), left);
    left -= changed.size();
    list.changed.push_back(std::move(changed));
    return std::string_view(list.changed.back());
  };
  for (size_t i = 0; i < steps_.size(); ++i) {
    const PreTokenizerStep& step = steps_[i];
    std::vector<Word> next;
    for (const Word& word : list.words) {
      if (word.malformed) {
        next.push_back(word);
        continue;
      }
      std::vector<TextPart> parts;
      switch (step.kind) {
        case PreTokenizerStep::Kind::split_regex:
          parts = compiled_[i]->find_parts(word.text);
          append_parts(next, word.text, parts, step);
          break;
        case PreTokenizerStep::Kind::split_text:
          parts = find_text(word.text, step.text);
          append_parts(next, word.text, parts, step);
          break;
        case PreTokenizerStep::Kind::split_digits:
          parts = find_digits(word.text);
          append_parts(next, word.text, parts, step);
          break;
        case PreTokenizerStep::Kind::replace:
          if (const std::string_view changed =
                  keep(replace_all(word.text, step.text, step.replacement, left));
              !changed.empty())
            next.push_back({changed, false});
          break;
        case PreTokenizerStep::Kind::prefix:
        case PreTokenizerStep::Kind::prefix_to_first: {
          const bool wanted = step.kind == PreTokenizerStep::Kind::prefix || (at_start && next.empty());
          if (wanted && word.text.substr(0, step.text.size()) != step.text) {
            next.push_back({keep(step.text + std::string(word.text)), false});
          } else {
            next.push_back(word);
          }
          break;
        }
      }
    }
    list.words = std::move(next);
  }
  return list;
}

}  // namespace tessera
