#include "engine/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

bool is_space(uint32_t codepoint) {
  if ((codepoint >= 0x09 && codepoint <= 0x0D) || codepoint == 0x85) return true;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codepoint));
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

// Words consist of letters, marks, numbers, connecting punctuation and the two joiners.
bool is_word(uint32_t codepoint) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(codepoint))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return codepoint == 0x200C || codepoint == 0x200D;
  }
}

// The character that ends before byte `end`; U+FFFD for a malformed byte.
Utf8Character character_before(std::string_view text, size_t end) {
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    const Utf8Character character = read_utf8(text.substr(0, end), end - length);
    if (character.state == Utf8Character::State::complete && character.length == length) return character;
  }
  return {};
}

size_t skip_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const Utf8Character character = read_utf8(text, at);
    if (character.state != Utf8Character::State::complete || !is_space(character.codepoint)) break;
    at += character.length;
  }
  return at;
}

size_t skip_space_back(std::string_view text, size_t end, size_t floor) {
  while (end > floor) {
    const Utf8Character character = character_before(text, end);
    if (character.state != Utf8Character::State::complete || !is_space(character.codepoint)) break;
    if (character.length > end - floor) break;
    end -= character.length;
  }
  return end;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(character_before(text, begin).codepoint)) return true;
  return end < text.size() && is_word(read_utf8(text, end).codepoint);
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens, bool normalized)
    : begins_(256, false) {
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized || token.pattern.empty()) continue;
    sorted_.push_back(&token);
    begins_[static_cast<unsigned char>(token.pattern.front())] = true;
  }
  std::stable_sort(sorted_.begin(), sorted_.end(),
                   [](const AddedToken* a, const AddedToken* b) { return a->pattern < b->pattern; });
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, size_t at, size_t special_end) const {
  if (!begins_[static_cast<unsigned char>(text[at])]) return nullptr;
  // first … last are the patterns that begin with the same `depth` bytes as the text: neighbours, since they
  // are sorted.
  auto first = sorted_.begin();
  auto last = sorted_.end();
  const AddedToken* found = nullptr;
  for (size_t depth = 0; at + depth < text.size(); ++depth) {
    const auto wanted = static_cast<unsigned char>(text[at + depth]);
    const auto byte = [depth](const AddedToken* token) {
      return static_cast<unsigned char>(token->pattern[depth]);
    };
    first = std::lower_bound(first, last, wanted, [&](const AddedToken* token, unsigned char value) {
      return byte(token) < value;
    });
    last = std::upper_bound(first, last, wanted, [&](unsigned char value, const AddedToken* token) {
      return value < byte(token);
    });
    // A pattern of exactly these bytes sorts before all longer ones.
    for (; first != last && (*first)->pattern.size() == depth + 1; ++first)
      if (!(*first)->special || at + depth < special_end) found = *first;
    if (first == last) break;
  }
  return found;
}

std::vector<TextSegment> AddedTokenFinder::split(std::string_view text, const Quotes& quotes) const {
  std::vector<TextSegment> segments;
  size_t done = 0;  // end of the last segment
  if (!sorted_.empty()) {
    Quotes::Stretch stretch;
    for (size_t at = 0; at < text.size();) {
      // A special token must not be partly quoted, and one that would be does not hide a shorter one before
      // the quote.
      if (at >= stretch.end) stretch = quotes.stretch_at(at, text.size());
      const AddedToken* token = longest_at(text, at, stretch.end);
      if (token == nullptr) {
        ++at;
        continue;
      }
      size_t begin = at;
      size_t end = at + token->pattern.size();
      at = end;
      if (token->special && stretch.quoted) continue;
      if (token->single_word && touches_word(text, begin, end)) continue;
      if (token->left_strip) begin = std::max(skip_space_back(text, begin, std::min(done, begin)), done);
      if (token->right_strip) end = skip_space(text, end);
      if (begin >= end) continue;  // the token before took all of it along
      if (done < begin) segments.push_back({text.substr(done, begin - done), nullptr});
      segments.push_back({text.substr(begin, end - begin), token});
      done = end;
    }
  }
  if (done < text.size()) segments.push_back({text.substr(done), nullptr});
  return segments;
}

}  // namespace tessera
