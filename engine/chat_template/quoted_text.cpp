#include "engine/chat_template/quoted_text.h"

#include <algorithm>
#include <utility>

namespace tessera {

void Quotes::add(size_t begin, size_t end) {
  if (begin >= end) return;
  if (!ranges_.empty() && begin <= ranges_.back().end) {
    ranges_.back().end = std::max(ranges_.back().end, end);
  } else {
    ranges_.push_back({begin, end});
  }
}

void Quotes::add(const Quotes& others, size_t begin, size_t end, size_t at) {
  for (auto range = others.first_after(begin); range != others.ranges_.end() && range->begin < end; ++range)
    add(at + std::max(range->begin, begin) - begin, at + std::min(range->end, end) - begin);
}

// The first range that ends after `at`.
std::vector<Quotes::Range>::const_iterator Quotes::first_after(size_t at) const {
  return std::upper_bound(ranges_.begin(), ranges_.end(), at,
                          [](size_t position, const Range& range) { return position < range.end; });
}

bool Quotes::any_in(size_t begin, size_t end) const {
  const auto range = first_after(begin);
  return range != ranges_.end() && range->begin < end;
}

Quotes::Stretch Quotes::stretch_at(size_t at, size_t size) const {
  const auto range = first_after(at);
  if (range == ranges_.end()) return {size, false};
  if (at < range->begin) return {range->begin, false};
  return {range->end, true};
}

void QuotedText::append(std::string_view more, bool quoted) {
  if (quoted) quotes.add(text.size(), text.size() + more.size());
  text += more;
}

void QuotedText::append(const QuotedText& source, size_t begin, size_t end) {
  quotes.add(source.quotes, begin, end, text.size());
  text.append(source.text, begin, end - begin);
}

QuotedText as_quoted(std::string text) {
  QuotedText all;
  all.quotes.add(0, text.size());
  all.text = std::move(text);
  return all;
}

QuotedText as_unquoted(std::string text) { return {std::move(text), {}}; }

}  // namespace tessera
