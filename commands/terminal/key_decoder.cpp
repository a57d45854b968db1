#include "commands/terminal/key_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

constexpr unsigned char kEscape = 0x1B;
constexpr unsigned char kCancel = 0x18;
constexpr unsigned char kSubstitute = 0x1A;
constexpr unsigned char kBell = 0x07;
constexpr unsigned char kDelete = 0x7F;
constexpr size_t kLongestBody = 64;  // of a key that means anything
constexpr size_t kMouseBytes = 3;

// Modifiers of xterm's keys, after 1 was subtracted.
constexpr uint32_t kShift = 1;
constexpr uint32_t kAlt = 2;
constexpr uint32_t kControl = 4;
constexpr uint32_t kKeys = 63;  // all but Caps Lock and Num Lock
constexpr uint32_t kReleased = 3;

bool within(unsigned char byte, unsigned char least, unsigned char greatest) {
  return byte >= least && byte <= greatest;
}

// Numbers of "1;5:3": those between semicolons, each with those between its colons; missing ones are 0.
// Nothing where there is anything else.
std::optional<std::vector<std::vector<uint32_t>>> numbers_of(const std::string& body) {
  constexpr uint32_t kGreatest = 0x110000;
  std::vector<std::vector<uint32_t>> numbers = {{0}};
  for (const char c : body) {
    if (c == ';') {
      numbers.push_back({0});
    } else if (c == ':') {
      numbers.back().push_back(0);
    } else if (c >= '0' && c <= '9') {
      uint32_t& number = numbers.back().back();
      number = std::min(number * 10 + static_cast<uint32_t>(c - '0'), kGreatest);
    } else {
      return std::nullopt;
    }
  }
  return numbers;
}

}  // namespace

void KeyDecoder::feed(unsigned char byte, Time now) {
  const auto since = now - latest_;
  latest_ = now;
  if (state_ != State::ground && !pasting_) {
    const bool shift_of_rxvt =  // ESC [ 7 $ is Shift with Home there; elsewhere a final byte follows
        state_ == State::csi && body_.size() > 1 && body_.back() == '$' &&
        std::all_of(body_.begin(), body_.end() - 1, [](char c) { return c >= '0' && c <= '9'; });
    if (since > kSequenceTime || (since > kEscapeTime && shift_of_rxvt)) {
      if (state_ == State::escape) settle_escape();
      end_sequence();
    } else if (since > kEscapeTime && state_ == State::escape && byte != '[') {
      settle_escape();
    }
  }
  step(byte);
}

std::optional<KeyEvent> KeyDecoder::take() {
  if (events_.empty()) return std::nullopt;
  KeyEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void KeyDecoder::settle_escape() {
  end_sequence();
  events_.push_back({KeyEvent::Kind::escape, 0, {}});
}

void KeyDecoder::begin(State state) {
  state_ = state;
  body_.clear();
  overlong_ = false;
}

void KeyDecoder::end_sequence() {
  state_ = State::ground;
  doubled_ = false;
}

void KeyDecoder::restart(unsigned char byte) {
  end_sequence();
  if (byte != kCancel && byte != kSubstitute) step(byte);
}

void KeyDecoder::step(unsigned char byte) {
  switch (state_) {
    case State::ground:
      text(byte);
      break;
    case State::escape:
      after_esc(byte);
      break;
    case State::designation:
      if (within(byte, 0x30, 0x7E)) {
        end_sequence();
      } else if (!within(byte, 0x20, 0x2F)) {
        restart(byte);
      }
      break;
    case State::csi:
      csi_byte(byte);
      break;
    case State::console_key:
      if (within(byte, 0x20, 0x7E)) {
        emit_key(fmt::format("\x1b[[{}", static_cast<char>(byte)));
        end_sequence();
      } else {
        restart(byte);
      }
      break;
    case State::mouse:
      if (byte < 0x20) {
        restart(byte);
      } else if (--missing_ == 0) {
        end_sequence();
      }
      break;
    case State::ss3:
      if (within(byte, 0x40, 0x7E)) {
        if (!overlong_) emit_key(fmt::format("\x1bO{}{}", body_, static_cast<char>(byte)));
        end_sequence();
      } else if (within(byte, '0', ';')) {
        overlong_ = overlong_ || body_.size() >= kLongestBody;
        if (!overlong_) body_ += static_cast<char>(byte);
      } else {
        restart(byte);
      }
      break;
    case State::string:
      if (byte == kEscape) {
        state_ = State::string_escape;
      } else if (byte == kBell) {
        end_sequence();
      } else if (byte == '\r' || byte == '\n' || byte == kCancel || byte == kSubstitute) {
        restart(byte);
      }
      break;
    case State::string_escape:
      end_sequence();
      if (byte != '\\') {
        begin(State::escape);
        step(byte);
      }
      break;
  }
}

// A byte outside sequences. One that does not go on with a character ends it: only its bytes are lost.
void KeyDecoder::text(unsigned char byte) {
  partial_ += static_cast<char>(byte);
  Utf8Character character = read_utf8(partial_, 0);
  if (character.state == Utf8Character::State::malformed && partial_.size() > 1) {
    partial_.assign(1, static_cast<char>(byte));
    with_alt_ = false;
    character = read_utf8(partial_, 0);
  }
  if (character.state == Utf8Character::State::unfinished) return;
  partial_.clear();
  if (character.state == Utf8Character::State::malformed) {
    with_alt_ = false;
  } else if (byte == kEscape) {
    begin(State::escape);
  } else {
    emit(character.codepoint);
  }
}

void KeyDecoder::after_esc(unsigned char byte) {
  if (byte == '[') {
    begin(State::csi);
  } else if (byte == 'O') {
    begin(State::ss3);
  } else if (byte == ']' || byte == 'P' || byte == 'X' || byte == '^' || byte == '_') {
    begin(State::string);
  } else if (byte == kEscape) {
    doubled_ = true;
  } else if (byte == kCancel || byte == kSubstitute) {
    end_sequence();
  } else if (pasting_) {
    if (within(byte, 0x20, 0x2F)) {
      begin(State::designation);
    } else if (within(byte, 0x30, 0x7E)) {
      end_sequence();
    } else {
      restart(byte);
    }
  } else if (byte < 0x80) {
    emit_key(fmt::format("\x1b{}", static_cast<char>(byte)));
    end_sequence();
  } else {
    end_sequence();
    with_alt_ = true;  // means nothing for a character that is not ASCII
    text(byte);
  }
}

void KeyDecoder::csi_byte(unsigned char byte) {
  if (within(byte, 0x20, 0x3F)) {
    overlong_ = overlong_ || body_.size() >= kLongestBody;
    if (!overlong_) body_ += static_cast<char>(byte);
  } else if (!within(byte, 0x40, 0x7E)) {
    restart(byte);
  } else if (byte == '[' && body_.empty() && !pasting_) {
    state_ = State::console_key;
  } else if (byte == 'M' && body_.empty() && !pasting_) {
    state_ = State::mouse;
    missing_ = kMouseBytes;
  } else {
    if (!overlong_) finish_csi(static_cast<char>(byte));
    end_sequence();
  }
}

void KeyDecoder::finish_csi(char final) {
  if (final == '~' && (body_ == "200" || body_ == "201")) {
    const bool begins = body_ == "200";
    if (pasting_ != begins) {
      events_.push_back({begins ? KeyEvent::Kind::paste_begin : KeyEvent::Kind::paste_end, 0, {}});
    }
    pasting_ = begins;
    return;
  }
  if (pasting_) return;
  const std::string as_sent = fmt::format("\x1b[{}{}", body_, final);
  const auto numbers = numbers_of(body_);
  if (!numbers) return emit_key(as_sent);
  const auto number = [&](size_t i, size_t j) {
    return i < numbers->size() && j < (*numbers)[i].size() ? (*numbers)[i][j] : 0;
  };
  const bool of_code = final == 'u' && !body_.empty();
  const bool of_key =
      final == '~' || (within(static_cast<unsigned char>(final), 'A', 'S') && number(0, 0) <= 1);
  if (!of_code && (!of_key || numbers->size() < 2)) return emit_key(as_sent);
  if (of_key && final == '~' && numbers->size() == 3 && number(0, 0) == 27)  // xterm's modifyOtherKeys
    return finish_code(number(2, 0), 0, (std::max(number(1, 0), 1u) - 1) & kKeys, {});

  const uint32_t modifiers = (std::max(number(1, 0), 1u) - 1) & kKeys;
  if (number(1, 1) == kReleased) return;
  if (of_code) {
    std::u32string typed;
    for (size_t i = 0; numbers->size() > 2 && i < (*numbers)[2].size(); ++i)
      if (number(2, i) != 0) typed += static_cast<char32_t>(number(2, i));
    return finish_code(number(0, 0), number(0, 1), modifiers, typed);
  }
  if (numbers->size() > 2) return emit_key(as_sent);
  const std::string with = modifiers == 0 ? "" : fmt::format(";{}", modifiers + 1);
  if (final == '~') return emit_key(fmt::format("\x1b[{}{}~", number(0, 0), with));
  emit_key(fmt::format("\x1b[{}{}{}", modifiers == 0 ? "" : "1", with, final));
}

// A key by the code point that it types without modifiers, as older terminals would send it: Ctrl-A is 1,
// Alt-A is ESC a. What they could not send has no meaning here.
void KeyDecoder::finish_code(uint32_t code, uint32_t shifted, uint32_t modifiers,
                             const std::u32string& typed) {
  constexpr uint32_t kFirstFunctional = 57344;  // kitty's keys that type nothing
  constexpr uint32_t kLastFunctional = 63743;
  constexpr std::array<uint32_t, 4> kEditing = {'\b', '\t', '\r', kDelete};
  if (doubled_ || (modifiers & ~(kShift | kAlt | kControl)) != 0) return;
  const bool control = (modifiers & kControl) != 0;
  const bool alt = (modifiers & kAlt) != 0;
  const bool shift = (modifiers & kShift) != 0;
  if (!typed.empty() && !control && !alt) {
    for (const char32_t character : typed)
      if (character >= 0x20) emit(character);
    return;
  }
  if (code >= kFirstFunctional && code <= kLastFunctional) return;
  if (code == kEscape) {
    if (modifiers == 0) events_.push_back({KeyEvent::Kind::escape, 0, {}});
    return;
  }
  if (code < 0x20 || code == kDelete) {
    const bool known = std::find(kEditing.begin(), kEditing.end(), code) != kEditing.end();
    if (!known || control || (shift && code != kDelete)) return;
  } else if (shift) {
    code = shifted != 0 ? shifted : code >= 'a' && code <= 'z' ? code - 0x20 : code;
  }
  if (control) {
    const bool letter = (code | 0x20u) >= 'a' && (code | 0x20u) <= 'z';
    if (!letter && code != ' ' && code != '@' && code != '\\' && code != ']' && code != '^' && code != '_')
      return;
    code &= 0x1Fu;
  }
  if (!alt) return emit(code);
  if (code < 0x80) emit_key(fmt::format("\x1b{}", static_cast<char>(code)));
}

void KeyDecoder::emit(char32_t character) {
  if (std::exchange(with_alt_, false) || (character >= 0x80 && character <= 0x9F)) return;
  if (character > 0x10FFFF || (character >= 0xD800 && character <= 0xDFFF)) return;
  const bool control = character < 0x20 || character == kDelete;
  if (pasting_ && control && character != '\t' && character != '\r' && character != '\n') return;
  events_.push_back({KeyEvent::Kind::character, character, {}});
}

void KeyDecoder::emit_key(std::string sequence) {
  if (doubled_) sequence.insert(sequence.begin(), static_cast<char>(kEscape));
  if (!pasting_) events_.push_back({KeyEvent::Kind::key, 0, std::move(sequence)});
}

}  // namespace tessera
