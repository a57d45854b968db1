#include "engine/tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

constexpr size_t kMostPatternBytes = 65536;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

// Limits the processor time that an expression may take for a text: a thousand times that of a real
// tokenizer, but less than that of an expression that scans the whole text from every position. The clock is
// read at every 64th match.
class TimeLimit {
 public:
  explicit TimeLimit(size_t bytes) : seconds_(1.0 + 20e-6 * static_cast<double>(bytes)) {}
  bool passed() {
    if (++calls_ % 64 != 0) return false;  // reading the clock is a system call, and most texts are short
    if (calls_ == 64) begun_ = now();
    return now() - begun_ > seconds_;
  }

 private:
  static double now() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  double seconds_;
  double begun_ = 0;
  size_t calls_ = 0;
};

struct FreePcre2 {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  if (pcre2_get_error_message(code, buffer.data(), buffer.size()) < 0) return fmt::format("error {}", code);
  return std::string(reinterpret_cast<const char*>(buffer.data()));
}

// Tokenizer files are written for another regular expression library. This function rewrites the classes that
// differ (\s, \S, \w, \W) and returns an error message for a construct that cannot be expressed here, else
// nothing.
std::optional<std::string> translate(std::string_view pattern, std::string& out) {
  constexpr std::string_view space = R"(\x{9}-\x{D}\x{85}\p{Z})";
  constexpr std::string_view word = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
  bool in_class = false;
  bool class_begins = false;  // directly after '[', where ']' is an ordinary character
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '\\' && at + 1 < pattern.size()) {
      const char escaped = pattern[++at];
      class_begins = false;
      if (escaped == 's' || escaped == 'w') {
        const std::string_view members = escaped == 's' ? space : word;
        out += in_class ? std::string(members) : fmt::format("[{}]", members);
      } else if ((escaped == 'S' || escaped == 'W') && !in_class) {
        out += fmt::format("[^{}]", escaped == 'S' ? space : word);
      } else if (escaped == 'h' || escaped == 'H' || escaped == 'Q' || escaped == 'E' || escaped == 'C') {
        return fmt::format("\\{} is not supported", escaped);
      } else {
        out += c;
        out += escaped;
      }
      continue;
    }
    if (in_class) {
      if (c == ']' && !class_begins) {
        in_class = false;
      } else if (c == '[' && !(at + 1 < pattern.size() && pattern[at + 1] == ':')) {
        return "a character class inside a character class is not supported";
      } else if (c == '&' && at + 1 < pattern.size() && pattern[at + 1] == '&') {
        return "an intersection of character classes is not supported";
      } else if (c == '[') {  // copies [:name:]
        const size_t end = pattern.find(":]", at + 2);
        if (end == std::string_view::npos) return "a [: without :]";
        out += pattern.substr(at, end + 2 - at);
        at = end + 1;
        class_begins = false;
        continue;
      }
      class_begins = class_begins && c == '^' && out.back() == '[';
    } else if (c == '[') {
      in_class = true;
      class_begins = true;
    }
    out += c;
  }
  return std::nullopt;
}

}  // namespace

struct SplitPattern::Code {
  std::unique_ptr<pcre2_code, FreePcre2> compiled;
};

SplitPattern::SplitPattern(const std::string& pattern, const std::string& where)
    : pattern_(pattern), where_(where) {
  const auto refuse = [&](const std::string& fault) {
    throw FileError(fmt::format("{}: regular expression \"{}\": {}", where, printable(pattern), fault));
  };
  if (pattern.size() > kMostPatternBytes)
    refuse(fmt::format("expected at most {} bytes, found {}", kMostPatternBytes, pattern.size()));
  if (!is_utf8(pattern)) refuse("not UTF-8");
  std::string translated;
  if (const auto fault = translate(pattern, translated)) refuse(*fault);
  int error = 0;
  PCRE2_SIZE error_at = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &error_at, nullptr);
  if (compiled == nullptr) refuse(fmt::format("does not compile: {}", error_text(error)));
  auto code = std::make_unique<Code>();
  code->compiled.reset(compiled);
  // Compiled to machine code, matching is several times faster. Where that is not available, matching still
  // works.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

SplitPattern::~SplitPattern() = default;

std::vector<TextPart> SplitPattern::find_parts(std::string_view text) const {
  const auto give_up = [&](const std::string& why) {
    throw FileError(fmt::format("{}: regular expression \"{}\": gave up on a text of {} bytes: {}", where_,
                                printable(pattern_), text.size(), why));
  };
  const std::unique_ptr<pcre2_match_data, FreePcre2> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreePcre2> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) throw std::bad_alloc();
  const uint64_t limit = 1'000'000 + 100 * static_cast<uint64_t>(text.size());
  pcre2_set_match_limit(
      context.get(), static_cast<uint32_t>(std::min<uint64_t>(limit, std::numeric_limits<uint32_t>::max())));
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);

  TimeLimit time(text.size());
  std::vector<TextPart> parts;
  size_t covered = 0;                                    // end of the last part
  size_t last_end = std::numeric_limits<size_t>::max();  // of the last match
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  for (size_t start = 0; start <= text.size();) {
    const uint32_t options = PCRE2_NO_UTF_CHECK;
    int found =
        pcre2_match(code_->compiled.get(), subject, text.size(), start, options, data.get(), context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
      found = pcre2_match(code_->compiled.get(), subject, text.size(), start, options | PCRE2_NO_JIT,
                          data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) give_up(error_text(found));
    if (time.passed()) give_up("it takes too long");
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    const size_t begin = range[0];
    const size_t end = range[1];
    if (begin < start || end < begin)
      throw FileError(
          fmt::format("{}: regular expression \"{}\": matches backwards", where_, printable(pattern_)));
    if (begin == end) {  // an empty match separates two parts, unless the last match ended here
      start = end < text.size() ? end + read_utf8(text, end).length : end + 1;
      if (end == last_end) continue;
    } else {
      start = end;
    }
    last_end = end;
    if (covered < begin) parts.push_back({covered, begin, false});
    parts.push_back({begin, end, true});
    covered = end;
  }
  if (covered < text.size()) parts.push_back({covered, text.size(), false});
  return parts;
}

}  // namespace tessera
