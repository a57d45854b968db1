#include "commands/terminal/line_reader.h"

#include <fmt/format.h>
#include <histedit.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <optional>
#include <stdexcept>

#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"

namespace tessera {

namespace {

constexpr std::string_view kFence = "\"\"\"";
constexpr std::wstring_view kPasteEnd = L"\x1b[201~";
constexpr size_t kMostPasted = size_t{1} << 24;  // characters
constexpr size_t kHistorySize = 1000;

struct EditLineEnd {
  void operator()(EditLine* editor) const { el_end(editor); }
};
struct HistoryEnd {
  void operator()(History* history) const { history_end(history); }
};

void append_utf8(std::string& text, wchar_t wide) {
  std::array<char, 16> bytes = {};
  std::mbstate_t state = {};
  const size_t count = std::wcrtomb(bytes.data(), wide, &state);
  if (count != static_cast<size_t>(-1)) text.append(bytes.data(), count);
}

}  // namespace

struct LineReader::Editor {
  PromptHistory stored;  // of this chat and earlier ones
  std::unique_ptr<History, HistoryEnd> history;
  std::unique_ptr<EditLine, EditLineEnd> line;
  FILE* terminal = nullptr;  // where prompts and the edited line are drawn
  std::string prompt;
  std::mbstate_t partial = {};
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

  static Editor& owner(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }
  static char* prompt_text(EditLine* editor) { return owner(editor).prompt.data(); }
  static int read_character(EditLine* editor, wchar_t* character);
  static unsigned char insert_paste(EditLine* editor, int);
};

// Waits for a byte or a signal; whole characters go to the editor, broken ones are dropped.
int LineReader::Editor::read_character(EditLine* editor, wchar_t* character) {
  Editor& self = owner(editor);
  for (;;) {
    if (InterruptScope::requested()) {
      if (!self.interrupted) self.was_empty = self.line_is_empty();
      self.interrupted = true;
      return -1;
    }
    std::array<pollfd, 2> sources = {pollfd{STDIN_FILENO, POLLIN, 0},
                                     pollfd{InterruptScope::wake_descriptor(), POLLIN, 0}};
    if (poll(sources.data(), sources.size(), -1) < 0) continue;
    if (sources[1].revents != 0) {
      self.handle_wakeups();
      continue;
    }
    char byte = 0;
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return 0;  // the terminal was closed
    const size_t used = std::mbrtowc(character, &byte, 1, &self.partial);
    if (used == static_cast<size_t>(-2)) continue;
    if (used == static_cast<size_t>(-1)) {
      self.partial = {};
      continue;
    }
    return 1;
  }
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
  std::wstring pasted;
  while (pasted.size() < kPasteEnd.size() ||
         pasted.compare(pasted.size() - kPasteEnd.size(), kPasteEnd.size(), kPasteEnd) != 0) {
    wchar_t character = 0;
    if (el_wgetc(editor, &character) != 1) return CC_ERROR;
    if (pasted.size() < kMostPasted) {
      pasted += character;
    } else {  // too long: only its end matters
      pasted.erase(pasted.size() - kPasteEnd.size(), 1);
      pasted += character;
    }
  }
  pasted.resize(pasted.size() - kPasteEnd.size());
  std::string text;
  for (size_t i = 0; i < pasted.size(); ++i) {
    const wchar_t character = pasted[i];
    if (character == L'\r' || character == L'\n') {
      if (character == L'\n' && i > 0 && pasted[i - 1] == L'\r') continue;
      text += '\n';
    } else if (character == L'\t' || (character >= 0x20 && (character < 0x7F || character > 0x9F))) {
      append_utf8(text, character);
    }
  }
  if (!text.empty() && el_insertstr(editor, text.c_str()) != 0) return CC_ERROR;
  return CC_REFRESH;
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
  constexpr std::array<std::array<const char*, 2>, 9> bindings = {{{"\\e[200~", "insert-paste"},
                                                                   {"\\e[H", "ed-move-to-beg"},
                                                                   {"\\e[F", "ed-move-to-end"},
                                                                   {"\\e[1~", "ed-move-to-beg"},
                                                                   {"\\e[4~", "ed-move-to-end"},
                                                                   {"\\e[3~", "ed-delete-next-char"},
                                                                   {"\\e[1;5D", "ed-prev-word"},
                                                                   {"\\e[1;5C", "em-next-word"},
                                                                   {"^R", "em-inc-search-prev"}}};
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
  partial = {};
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
