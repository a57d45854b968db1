#include "commands/terminal/line_reader.h"

#include <fmt/format.h>
#include <histedit.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "commands/terminal/interrupt.h"
#include "commands/terminal/key_decoder.h"
#include "commands/terminal/terminal.h"
#include "engine/tokenizer/utf8.h"

namespace tessera {

namespace {

constexpr std::string_view kFence = "\"\"\"";
constexpr std::string_view kPasteKey = "\x1b[200~";
constexpr char32_t kControlC = 3;
// Does nothing: ends a search through the history, and is no more than that.
constexpr wchar_t kNoKey = 0x1E;
constexpr size_t kMostPasted = size_t{1} << 24;  // characters
constexpr size_t kHistorySize = 1000;

struct EditLineEnd {
  void operator()(EditLine* editor) const { el_end(editor); }
};
struct HistoryEnd {
  void operator()(History* history) const { history_end(history); }
};

}  // namespace

struct LineReader::Editor {
  PromptHistory stored;  // of this chat and earlier ones
  std::unique_ptr<History, HistoryEnd> history;
  std::unique_ptr<EditLine, EditLineEnd> line;
  FILE* terminal = nullptr;  // where prompts and the edited line are drawn
  std::string prompt;
  KeyDecoder keys;
  std::wstring unread;  // characters of keys that the editor knows, in reverse
  bool interrupted = false;
  bool was_empty = false;

  Editor();
  struct Line {
    TypedMessage::Kind kind;
    std::string text;  // without its newline
  };
  Line read_line(const char* shown);
  void remember(const std::string& message);
  bool line_is_empty() const {
    const LineInfo* info = el_line(line.get());
    return info->lastchar == info->buffer;
  }
  void handle_wakeups();
  bool edits_like_vi() const {
    const char* style = nullptr;
    return el_get(line.get(), EL_EDITOR, &style) == 0 && style != nullptr && style[0] == 'v';
  }
  bool searches() const;
  bool binds(const std::string& sequence);
  int next_event(KeyEvent& event);

  static Editor& owner(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static char* prompt_text(EditLine* editor) { return owner(editor).prompt.data(); }
  static int read_character(EditLine* editor, wchar_t* character);
  static unsigned char insert_paste(EditLine* editor, int);
  static unsigned char insert_quoted(EditLine* editor, int);
  static unsigned char do_nothing(EditLine*, int) { return CC_NORM; }
};

// Whether the line is that of a search through the history, which libedit draws below the message.
bool LineReader::Editor::searches() const {
  const LineInfoW* info = el_wline(line.get());
  const std::wstring_view shown(info->buffer, static_cast<size_t>(info->lastchar - info->buffer));
  const size_t end = shown.rfind(L'\n');
  if (end == std::wstring_view::npos) return false;
  const std::wstring_view last = shown.substr(end + 1);
  return last.starts_with(L"bck:") || last.starts_with(L"bck?") || last.starts_with(L"fwd:") ||
         last.starts_with(L"fwd?");
}

// Whether the editor, or the user's ~/.editrc, knows the sequence. libedit only tells by printing.
bool LineReader::Editor::binds(const std::string& sequence) {
  std::string key;
  for (const char c : sequence) key += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
  char* printed = nullptr;
  size_t length = 0;
  FILE* const printer = open_memstream(&printed, &length);
  if (printer == nullptr) return false;
  char* complaint = nullptr;
  size_t complaint_length = 0;
  FILE* const complainer = open_memstream(&complaint, &complaint_length);
  if (complainer != nullptr) {
    el_set(line.get(), EL_SETFP, 1, printer);
    el_set(line.get(), EL_SETFP, 2, complainer);
    el_set(line.get(), EL_BIND, key.c_str(), nullptr);
    el_set(line.get(), EL_SETFP, 1, terminal);
    el_set(line.get(), EL_SETFP, 2, stderr);
    std::fclose(complainer);
  }
  std::fclose(printer);
  std::free(printed);
  std::free(complaint);
  return complainer != nullptr && complaint_length == 0;
}

// Waits for a key or a signal: 1 for an event, 0 when the terminal was closed, -1 for Ctrl-C.
int LineReader::Editor::next_event(KeyEvent& event) {
  for (;;) {
    if (InterruptScope::requested()) {
      if (!interrupted) was_empty = line_is_empty();
      interrupted = true;
      return -1;
    }
    if (std::optional<KeyEvent> next = keys.take()) {
      if (next->kind == KeyEvent::Kind::character && next->character == kControlC) {
        std::raise(SIGINT);  // sent as a key, which the terminal does not make a signal of
        continue;
      }
      event = std::move(*next);
      return 1;
    }
    std::array<pollfd, 2> sources = {pollfd{STDIN_FILENO, POLLIN, 0},
                                     pollfd{InterruptScope::wake_descriptor(), POLLIN, 0}};
    const int patience =
        keys.after_escape() && edits_like_vi() ? static_cast<int>(KeyDecoder::kEscapeTime.count()) : -1;
    const int ready = poll(sources.data(), sources.size(), patience);
    if (ready < 0) continue;
    if (ready == 0) {
      keys.settle_escape();
      continue;
    }
    if (sources[1].revents != 0) {
      handle_wakeups();
      continue;
    }
    unsigned char byte = 0;
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return 0;
    keys.feed(byte, std::chrono::steady_clock::now());
  }
}

// Gives the editor characters, and keys that it has a binding for, which it knows by their characters.
int LineReader::Editor::read_character(EditLine* editor, wchar_t* character) {
  Editor& self = owner(editor);
  while (self.unread.empty()) {
    KeyEvent event;
    const int result = self.next_event(event);
    if (result != 1) return result;
    switch (event.kind) {
      case KeyEvent::Kind::character:
        self.unread = static_cast<wchar_t>(event.character);
        break;
      case KeyEvent::Kind::escape:
        if (self.edits_like_vi()) self.unread = L'\x1b';
        break;
      case KeyEvent::Kind::paste_begin:
        event.sequence = kPasteKey;
        [[fallthrough]];
      case KeyEvent::Kind::key:
        if (!self.binds(event.sequence)) break;
        self.unread.assign(event.sequence.rbegin(), event.sequence.rend());
        // A search takes the first character of a key alone and would insert the others.
        if (self.searches()) self.unread += kNoKey;
        break;
      case KeyEvent::Kind::paste_end:
        break;
    }
  }
  *character = self.unread.back();
  self.unread.pop_back();
  return 1;
}

void LineReader::Editor::handle_wakeups() {
  std::array<char, 64> signals = {};
  const ssize_t count = ::read(InterruptScope::wake_descriptor(), signals.data(), signals.size());
  for (ssize_t i = 0; i < count; ++i) {
    if (signals[static_cast<size_t>(i)] == 'W') el_resize(line.get());
    if (signals[static_cast<size_t>(i)] == 'C') {  // the shell used the terminal meanwhile
      el_set(line.get(), EL_PREP_TERM, 0);
      el_set(line.get(), EL_PREP_TERM, 1);
      el_set(line.get(), EL_REFRESH);
    }
  }
}

// The terminal announced a paste: everything up to its end is inserted as text, newlines included, so that
// only the user's own Enter sends it.
unsigned char LineReader::Editor::insert_paste(EditLine* editor, int) {
  std::string text;
  size_t length = 0;
  bool after_return = false;
  for (KeyEvent event;;) {
    if (owner(editor).next_event(event) != 1) return CC_ERROR;
    if (event.kind == KeyEvent::Kind::paste_end) break;
    if (event.kind != KeyEvent::Kind::character || length == kMostPasted) continue;
    const char32_t character = event.character;
    const bool ends_line = character == U'\r' || character == U'\n';
    if (character != U'\n' || !after_return) {
      append_utf8(text, ends_line ? U'\n' : character);
      ++length;
    }
    after_return = character == U'\r';
  }
  if (!text.empty() && el_insertstr(editor, text.c_str()) != 0) return CC_ERROR;
  return CC_REFRESH;
}

// The next character as it is, as after Ctrl-V in a shell. Other keys have no character.
unsigned char LineReader::Editor::insert_quoted(EditLine* editor, int) {
  KeyEvent event;
  if (owner(editor).next_event(event) != 1) return CC_ERROR;
  if (event.kind != KeyEvent::Kind::character || event.character == 0) return CC_ERROR;
  std::string text;
  append_utf8(text, event.character);
  return el_insertstr(editor, text.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
}

LineReader::Editor::Editor() {
  terminal = is_terminal(STDERR_FILENO) ? stderr : stdout;
  line.reset(el_init("tessera", stdin, terminal, stderr));
  history.reset(history_init());
  if (line == nullptr || history == nullptr)
    throw std::runtime_error("stdin: the terminal cannot be edited on");
  HistEvent event = {};
  ::history(history.get(), &event, H_SETSIZE, static_cast<int>(kHistorySize));
  ::history(history.get(), &event, H_SETUNIQUE, 1);
  for (const std::string& entry : stored.entries()) ::history(history.get(), &event, H_ENTER, entry.c_str());

  EditLine* editor = line.get();
  el_set(editor, EL_CLIENTDATA, this);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 0);
  // Carriage returns and newlines stay what they are: otherwise a pasted CR LF would be two newlines.
  el_set(editor, EL_SETTY, "-d", "-icrnl", "-inlcr", nullptr);
  el_set(editor, EL_HIST, ::history, history.get());
  el_set(editor, EL_PROMPT_ESC, prompt_text, '\1');
  // The wide call keeps these pointers; the narrow one would make copies that nobody frees.
  el_wset(editor, EL_ADDFN, L"insert-paste", L"insert a bracketed paste", insert_paste);
  el_wset(editor, EL_ADDFN, L"insert-quoted", L"insert the next character as it is", insert_quoted);
  el_wset(editor, EL_ADDFN, L"do-nothing", L"nothing", do_nothing);
  constexpr std::array bindings = {
      std::array{"\\e[200~", "insert-paste"}, std::array{"\\e[H", "ed-move-to-beg"},
      std::array{"\\e[F", "ed-move-to-end"}, std::array{"\\e[1~", "ed-move-to-beg"},
      std::array{"\\e[4~", "ed-move-to-end"}, std::array{"\\e[3~", "ed-delete-next-char"},
      std::array{"\\e[1;5D", "ed-prev-word"}, std::array{"\\e[1;5C", "em-next-word"},
      std::array{"^R", "em-inc-search-prev"}, std::array{"^V", "insert-quoted"},
      std::array{"\\036", "do-nothing"},
      // libedit's own commands have no place in a chat, and keys typed after them would be text.
      std::array{"\\ex", "do-nothing"}, std::array{"\\eX", "do-nothing"}};
  for (const auto& [key, action] : bindings) el_set(editor, EL_BIND, key, action, nullptr);
  el_source(editor, nullptr);  // the user's own ~/.editrc
  el_set(editor, EL_GETCFN, read_character);
}

LineReader::Editor::Line LineReader::Editor::read_line(const char* shown) {
  const bool colour = shows_colour(fileno(terminal));
  prompt = colour ? fmt::format("\1\x1b[1m\1{}\1\x1b[0m\1", shown) : shown;
  const char* kind = std::getenv("TERM");
  const bool brackets = is_terminal(fileno(terminal)) && kind != nullptr && std::strcmp(kind, "dumb") != 0;
  // Before the prompt is seen, so that a key pressed right away is already read as a key.
  el_set(line.get(), EL_PREP_TERM, 1);
  if (brackets) std::fputs("\x1b[?2004h", terminal);
  std::fflush(terminal);

  interrupted = false;
  keys.reset();
  unread.clear();
  int count = 0;
  const char* typed = el_gets(line.get(), &count);
  Line result{TypedMessage::Kind::end, ""};
  if (interrupted) {
    result.kind = TypedMessage::Kind::interrupted;
    InterruptScope::clear();
    std::fputs("^C\n", terminal);
  } else if (typed != nullptr && count > 0) {
    result.kind = TypedMessage::Kind::message;
    result.text.assign(typed, static_cast<size_t>(count));
    if (result.text.back() == '\n') result.text.pop_back();
  } else {
    std::fputs("\n", terminal);
  }
  if (brackets) std::fputs("\x1b[?2004l", terminal);
  std::fflush(terminal);
  return result;
}

void LineReader::Editor::remember(const std::string& message) {
  if (message.find_first_not_of(" \t\n") == std::string::npos) return;
  HistEvent event = {};
  ::history(history.get(), &event, H_ENTER, message.c_str());
  stored.add(message);
}

LineReader::LineReader() : editor_(std::make_unique<Editor>()) {}

LineReader::~LineReader() = default;

TypedMessage LineReader::read() {
  TypedMessage message;
  std::string typed;
  for (bool first = true;; first = false) {
    const Editor::Line line = editor_->read_line(first ? "> " : "… ");
    if (line.kind != TypedMessage::Kind::message) {
      // An unfinished message is dropped as a whole; Ctrl-D ends the chat only at the first line.
      message.kind = first ? line.kind : TypedMessage::Kind::interrupted;
      message.was_empty = first && editor_->was_empty;
      return message;
    }
    typed += line.text;

    if (typed.compare(0, kFence.size(), kFence) == 0) {
      const size_t end = typed.find(kFence, kFence.size());
      if (end == std::string::npos) {
        typed += '\n';
        continue;
      }
      std::string inside = typed.substr(kFence.size(), end - kFence.size());
      if (!inside.empty() && inside.front() == '\n') inside.erase(0, 1);
      if (!inside.empty() && inside.back() == '\n') inside.pop_back();
      message.verbatim = true;
      message.text = inside + typed.substr(end + kFence.size());
      break;
    }
    if (!typed.empty() && typed.back() == '\\') {
      typed.back() = '\n';
      continue;
    }
    message.text = typed;
    break;
  }
  while (!message.verbatim && !message.text.empty() && message.text.back() == '\n') message.text.pop_back();
  message.kind = TypedMessage::Kind::message;
  editor_->remember(message.text);
  return message;
}

}  // namespace tessera
