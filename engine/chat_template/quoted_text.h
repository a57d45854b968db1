// A prompt and which of its bytes are quoted, that is, come from a message. The tokenizer reads no special
// token in quoted bytes, so that a message cannot imitate the structure of a conversation.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

// The quoted bytes of one text, as ranges in ascending order. No range is empty, and no two touch.
class Quotes {
 public:
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };
  // Consecutive bytes of a text that are all quoted or all unquoted.
  struct Stretch {
    size_t end = 0;
    bool quoted = false;
  };

  // Marks the bytes begin … end - 1 as quoted. begin must not lie before the last range's begin. An empty
  // range changes nothing.
  void add(size_t begin, size_t end);
  // Marks what `others` marks of its bytes begin … end - 1, for a copy of these bytes that begins at `at` in
  // this text.
  void add(const Quotes& others, size_t begin, size_t end, size_t at);

  const std::vector<Range>& ranges() const { return ranges_; }
  // Whether any of the bytes begin … end - 1 is quoted.
  bool any_in(size_t begin, size_t end) const;
  // The stretch that contains byte `at`, from there on. at < size, which is the number of bytes of the text.
  Stretch stretch_at(size_t at, size_t size) const;

 private:
  std::vector<Range>::const_iterator first_after(size_t at) const;

  std::vector<Range> ranges_;
};

struct QuotedText {
  std::string text;
  Quotes quotes;

  void append(std::string_view more, bool quoted);
  // Appends the source's bytes begin … end - 1 with their quotes.
  void append(const QuotedText& source, size_t begin, size_t end);
};

// A text of which everything or nothing is quoted.
QuotedText as_quoted(std::string text);
QuotedText as_unquoted(std::string text);

}  // namespace tessera
