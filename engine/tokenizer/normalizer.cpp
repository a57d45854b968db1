#include "engine/tokenizer/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

// Appends the canonical composition of a run of well-formed UTF-8. The library's own one-call form orders
// combining marks by exchanging neighbours, which takes quadratic time on long runs of them; a stable sort of
// every run does not.
void append_composed(std::string& out, std::string_view run) {
  std::vector<utf8proc_int32_t> codepoints;
  codepoints.reserve(run.size());
  int last_boundclass = UTF8PROC_BOUNDCLASS_START;
  for (size_t at = 0; at < run.size();) {
    const Utf8Character character = read_utf8(run, at);
    at += character.length;
    std::array<utf8proc_int32_t, 32> parts{};  // the longest canonical decomposition has four
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(character.codepoint), parts.data(), parts.size(),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &last_boundclass);
    if (count < 1 || static_cast<size_t>(count) > parts.size()) {
      codepoints.push_back(static_cast<utf8proc_int32_t>(character.codepoint));
    } else {
      codepoints.insert(codepoints.end(), parts.begin(), parts.begin() + count);
    }
  }
  const auto combining_class = [](utf8proc_int32_t codepoint) {
    return utf8proc_get_property(codepoint)->combining_class;
  };
  for (size_t begin = 0; begin < codepoints.size();) {
    if (combining_class(codepoints[begin]) == 0) {
      ++begin;
      continue;
    }
    size_t end = begin + 1;
    while (end < codepoints.size() && combining_class(codepoints[end]) != 0) ++end;
    std::stable_sort(
        codepoints.begin() + static_cast<std::ptrdiff_t>(begin),
        codepoints.begin() + static_cast<std::ptrdiff_t>(end),
        [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(codepoints.data(), static_cast<utf8proc_ssize_t>(codepoints.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0) {  // cannot happen for scalar values; keeps the text rather than losing it
    out += run;
    return;
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    append_utf8(out, static_cast<uint32_t>(codepoints[static_cast<size_t>(i)]));
}

std::string compose(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;  // where the current run of well-formed UTF-8 begins
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = read_utf8(text, at);
    if (character.state != Utf8Character::State::complete) {
      if (begin < at) append_composed(out, text.substr(begin, at - begin));
      out += text.substr(at, character.length);
      begin = at + character.length;
    }
    at += character.length;
  }
  if (begin < text.size()) append_composed(out, text.substr(begin));
  return out;
}

// Whether the character at this place is never composed with what stands before it: neither a mark nor the
// second or third letter of a Korean syllable.
bool stands_alone(std::string_view text, size_t at) {
  const Utf8Character character = read_utf8(text, at);
  if (character.state != Utf8Character::State::complete) return true;
  if (character.codepoint >= 0x1160 && character.codepoint <= 0x11FF) return false;
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(character.codepoint));
  return category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
         category != UTF8PROC_CATEGORY_ME;
}

// The first byte of the character that ends with the byte `at`, but at least `floor`.
size_t character_begin(std::string_view text, size_t at, size_t floor) {
  while (at > floor && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Canonical composition. A character made of quoted and other text counts as quoted.
QuotedText compose(QuotedText whole) {
  const std::string_view text = whole.text;
  // Characters below U+0300 only change where a mark follows, and marks begin with a byte of 0xCC or more.
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; }))
    return whole;
  // Quoted and unquoted text is composed separately. The cuts lie where no composition crosses them:
  // characters that compose with quoted ones are treated as quoted.
  QuotedText out;
  size_t done = 0;
  for (const Quotes::Range& range : whole.quotes.ranges()) {
    size_t begin = std::max(done, range.begin);
    size_t end = std::max(done, range.end);
    while (begin > done && !stands_alone(text, begin)) begin = character_begin(text, begin - 1, done);
    while (end < text.size() && !stands_alone(text, end)) end += read_utf8(text, end).length;
    out.append(compose(text.substr(done, begin - done)), false);
    out.append(compose(text.substr(begin, end - begin)), true);
    done = end;
  }
  out.append(compose(text.substr(done)), false);
  return out;
}

void prepend(QuotedText& text, const std::string& more) {
  QuotedText changed;
  changed.append(more, text.quotes.any_in(0, 1));
  changed.append(text, 0, text.text.size());
  text = std::move(changed);
}

QuotedText replace_all(const QuotedText& text, std::string_view from, std::string_view to,
                       size_t most_bytes) {
  QuotedText out;
  size_t begin = 0;
  for (size_t at = text.text.find(from); at != std::string::npos; at = text.text.find(from, begin)) {
    out.append(text, begin, at);
    begin = at + from.size();
    out.append(to, text.quotes.any_in(at, begin));
    check_rewritten(out.text.size(), most_bytes);
  }
  out.append(text, begin, text.text.size());
  check_rewritten(out.text.size(), most_bytes);
  return out;
}

QuotedText collapse_spaces(const QuotedText& text) {
  const std::string_view all = text.text;
  QuotedText out;
  for (size_t at = all.find_first_not_of(' '); at != std::string_view::npos;) {
    const size_t end = std::min(all.find(' ', at), all.size());
    const size_t next = all.find_first_not_of(' ', end);
    out.append(text, at, next == std::string_view::npos ? end : end + 1);
    at = next;
  }
  return out;
}

}  // namespace

size_t most_rewritten_bytes(size_t bytes) { return 64 * bytes + (size_t{1} << 20); }

void check_rewritten(size_t bytes, size_t most_bytes) {
  if (bytes > most_bytes)
    throw FileError(fmt::format("tokenizer: its replacements make a text longer than {} bytes", most_bytes));
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to,
                        size_t most_bytes) {
  return replace_all(as_unquoted(std::string(text)), from, to, most_bytes).text;
}

QuotedText normalize(const std::vector<NormalizerStep>& steps, QuotedText text, bool at_start) {
  const size_t most = most_rewritten_bytes(text.text.size());
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case NormalizerStep::Kind::nfc:
        text = compose(std::move(text));
        break;
      case NormalizerStep::Kind::prepend:
        if (!text.text.empty()) prepend(text, step.text);
        break;
      case NormalizerStep::Kind::prepend_to_first:
        if (!text.text.empty() && at_start) prepend(text, step.text);
        break;
      case NormalizerStep::Kind::replace:
        text = replace_all(text, step.text, step.replacement, most);
        break;
      case NormalizerStep::Kind::collapse_spaces:
        text = collapse_spaces(text);
        break;
    }
    check_rewritten(text.text.size(), most);
  }
  return text;
}

}  // namespace tessera
