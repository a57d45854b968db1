// Text that knows which of its bytes are quoted from a message: no special token is read there, whatever a
// chat template or a normalizer made of them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// The quoted bytes of one text: ranges in ascending order, none empty and no two touching.
class Quotes {
 public:
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };
  // Bytes of a text up to the place where quoted ones begin or end.
  struct Stretch {
    size_t end = 0;
    bool quoted = false;
  };

  // begin: not before the last range's begin. Nothing happens when the range is empty.
  void add(size_t begin, size_t end);
  // What others quote of their bytes begin … end, which here begin at `at`.
  void add(const Quotes& others, size_t begin, size_t end, size_t at);

  const std::vector<Range>& ranges() const { return ranges_; }
  bool any_in(size_t begin, size_t end) const;
  Stretch stretch_at(size_t at, size_t size) const;  // at < size, the bytes of the text

 private:
  std::vector<Range>::const_iterator first_after(size_t at) const;

  std::vector<Range> ranges_;
};

struct QuotedText {
  std::string text;
  Quotes quotes;

  void append(std::string_view more, bool quoted);
  void append(const QuotedText& source, size_t begin, size_t end);  // its bytes begin … end
};

// All of a text, quoted or not.
QuotedText as_quoted(std::string text);
QuotedText as_unquoted(std::string text);

}  // namespace tessera
