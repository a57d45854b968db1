// What a terminal sends, byte by byte, as characters and keys: UTF-8, escape sequences of any kind, pastes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace tessera {

struct KeyEvent {
  enum class Kind {
    character,    // typed or pasted; typed ones may be ASCII control characters
    key,          // a whole escape sequence, of ASCII only; it may be one that nothing is bound to
    escape,       // the Esc key alone
    paste_begin,  // the characters up to paste_end were pasted
    paste_end
  } kind = Kind::character;
  char32_t character = 0;
  std::string sequence;  // of a key
  friend bool operator==(const KeyEvent&, const KeyEvent&) = default;
};

// Cuts input at the bounds of sequences as ECMA-48 defines them, and as xterm, rxvt, the Linux console and
// kitty's keyboard protocol extend them, so that one that means nothing can be left out whole. Bytes that
// are no UTF-8, replies of the terminal, mouse reports and released keys give no event, and neither do escape
// sequences and control characters, other than tabs and ends of lines, within a paste. Keys come in one
// form where a terminal has several: without the locks among the modifiers, and as plain characters where
// they stand for one.
class KeyDecoder {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // A byte that comes later than this after Esc does not belong to it, unless it is the [ that begins most
  // sequences; nothing that comes later than kSequenceTime after a byte goes on with its sequence.
  static constexpr std::chrono::milliseconds kEscapeTime{100};
  static constexpr std::chrono::milliseconds kSequenceTime{1000};

  void feed(unsigned char byte, Time now);
  // The next event of what was fed.
  std::optional<KeyEvent> take();
  // Whether the latest byte is an Esc, which may be the key or the beginning of a sequence.
  bool after_escape() const { return state_ == State::escape && !pasting_; }
  // To be called when kEscapeTime has passed since such a byte: it was the key.
  void settle_escape();
  void reset() { *this = KeyDecoder(); }

 private:
  enum class State {
    ground,
    escape,
    designation,  // ESC and intermediate bytes, in a paste
    csi,
    console_key,  // ESC [ [: one more byte
    mouse,        // ESC [ M: three more bytes
    ss3,
    string,        // OSC, DCS, APC, PM, SOS
    string_escape  // ESC within one: its end if a \ follows
  };

  void step(unsigned char byte);
  void text(unsigned char byte);
  void after_esc(unsigned char byte);
  void csi_byte(unsigned char byte);
  void finish_csi(char final);
  void finish_code(uint32_t code, uint32_t shifted, uint32_t modifiers, const std::u32string& typed);
  void begin(State state);
  void end_sequence();
  void restart(unsigned char byte);  // abandons a sequence at a byte that is not one of its own
  void emit(char32_t character);
  void emit_key(std::string sequence);

  std::deque<KeyEvent> events_;
  State state_ = State::ground;
  Time latest_{};
  bool pasting_ = false;
  bool doubled_ = false;   // the sequence follows a further Esc
  bool with_alt_ = false;  // the character that is being read follows an Esc
  std::string body_;       // of a CSI or SS3 sequence, between introducer and final byte
  bool overlong_ = false;  // it has more bytes than are kept
  size_t missing_ = 0;     // bytes of a mouse report that are still to come
  std::string partial_;    // bytes of a character whose end is still to come
};

}  // namespace tessera
