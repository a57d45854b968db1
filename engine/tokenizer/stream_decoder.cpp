#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

constexpr std::string_view kReplacement = "\uFFFD";

}  // namespace

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool show_special)
    : tokenizer_(&tokenizer), show_special_(show_special) {}

std::string StreamDecoder::push(uint32_t id) {
  std::string bytes = tokenizer_->token_bytes(id, show_special_);
  if (bytes.empty()) return {};
  // The first token may lose a leading space, as decode() of a text does.
  if (at_start_) bytes = tokenizer_->decode(std::span<const uint32_t>(&id, 1), show_special_);
  at_start_ = false;
  pending_ += bytes;

  std::string certain;
  size_t at = 0;
  while (at < pending_.size()) {
    const Utf8Character character = read_utf8(pending_, at);
    if (character.state == Utf8Character::State::unfinished) break;
    if (character.state == Utf8Character::State::complete) {
      certain += std::string_view(pending_).substr(at, character.length);
    } else {
      certain += kReplacement;
    }
    at += character.length;
  }
  pending_.erase(0, at);
  return certain;
}

std::string StreamDecoder::finish() {
  // The pending bytes, if any, are the beginning of one character.
  const bool unfinished = !pending_.empty();
  pending_.clear();
  at_start_ = true;
  return unfinished ? std::string(kReplacement) : std::string();
}

}  // namespace tessera
