// Text to token ids and back, with the tokenizer of a .tess file or of a checkpoint, which is not converted
// for it.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "commands/command_line/escapes.h"
#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/load_model.h"
#include "commands/terminal/terminal.h"
#include "engine/chat_format/chat_format.h"
#include "engine/checkpoint/checkpoint_source.h"
#include "engine/checkpoint/huggingface_config.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/strict_json.h"
#include "gguf-like-format/tess/tess_file.h"

namespace tessera {

namespace {

constexpr size_t kMostTextBytes = size_t{32} << 20;

// "[1, 2,3]", "1,2,3" and "1 2 3" alike.
std::vector<uint32_t> parse_ids(const std::string& text, size_t vocabulary) {
  std::vector<uint32_t> ids;
  size_t begin = text.find_first_not_of(" \t\n");
  size_t end = text.find_last_not_of(" \t\n") + 1;
  if (begin == std::string::npos) return ids;
  if (text[begin] == '[') {
    if (text[end - 1] != ']')
      throw UsageError(fmt::format("--decode: expected ids such as [1,2,3], found '{}'", text));
    ++begin;
    --end;
  }
  while (begin < end) {
    const size_t next = std::min(text.find_first_of(", \t\n", begin), end);
    if (next > begin) {
      ids.push_back(static_cast<uint32_t>(parse_integer(
          "--decode: token id", std::string_view(text).substr(begin, next - begin), 0, vocabulary - 1)));
    }
    begin = next + 1;
  }
  return ids;
}

// The text of a message: a string, or parts of which only those of text count.
std::string content_of(const JsonFields& message) {
  constexpr std::string_view kContent = "content";
  if (!message.require(kContent).is_array()) return message.text(kContent, kMostTextBytes);
  const nlohmann::json& parts = message.array(kContent);
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const JsonFields part(parts[i], message.where(), fmt::format("{}[{}]", message.label(kContent), i));
    if (part.text("type", 256) != "text") part.refuse_value("type", "\"text\"");
    text += part.text("text", kMostTextBytes);
  }
  return text;
}

// The messages of a JSON file: a list of roles and contents, or an object with such a list as "messages", as
// saved chats are.
std::vector<ChatMessage> read_messages(const std::string& path) {
  const nlohmann::json document = read_strict_json(path);
  const bool list = document.is_array();
  const nlohmann::json& items = list ? document : JsonFields(document, path, "").array("messages");
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < items.size(); ++i) {
    const JsonFields message(items[i], path, fmt::format("{}[{}]", list ? "" : "messages", i));
    messages.push_back({message.text("role", 256), content_of(message)});
  }
  if (messages.empty()) throw FileError(fmt::format("{}: expected at least one message, found none", path));
  return messages;
}

// The conversation of --chat and --messages.
std::vector<ChatMessage> conversation_of(const Arguments& arguments,
                                         const std::function<std::string()>& text) {
  std::vector<ChatMessage> messages;
  if (const auto file = arguments.text("messages")) {
    messages = read_messages(*file);
  } else {
    messages.push_back({"user", text()});
  }
  if (const auto system = arguments.text("system")) {
    if (messages.front().role == "system")
      throw UsageError("--system: the messages begin with a system message already");
    messages.insert(messages.begin(), {"system", *system});
  }
  return messages;
}

}  // namespace

int run_tokenize(const Arguments& arguments) {
  const std::string& source = arguments.operands().front();
  const auto prompt = arguments.text("prompt");
  const auto file = arguments.text("file");
  const auto decode = arguments.text("decode");
  if (prompt && file) throw UsageError("-p and -f: expected one of them, found both");
  if (decode && (prompt || file || arguments.has("bos") || arguments.has("parse-special"))) {
    throw UsageError("--decode: takes the place of -p, -f, --bos and --parse-special");
  }

  const bool chat = arguments.has("chat") || arguments.has("messages");
  for (const char* flag : {"system", "chat-template"})
    if (arguments.has(flag) && !chat) throw UsageError(fmt::format("--{}: needs --chat or --messages", flag));
  if (chat) {
    for (const char* flag : {"bos", "parse-special", "decode"})
      if (arguments.has(flag))
        throw UsageError(fmt::format("--{}: has no meaning with a conversation", flag));
    if (arguments.has("messages") && (prompt || file))
      throw UsageError("--messages: takes the place of -p and -f");
  }

  std::unique_ptr<TessFile> model;
  std::unique_ptr<CheckpointSource> checkpoint;
  std::optional<Tokenizer> own;
  std::error_code none;
  if (std::filesystem::is_directory(source, none)) {
    std::vector<std::string> notes;
    own = Tokenizer::from_folder(source, &notes);  // which may hold a tokenizer and nothing else
    for (const std::string& line : notes) say(line);
  } else if (is_checkpoint(source)) {
    checkpoint = open_checkpoint(source);
  } else {
    model = TessFile::open(source, true);
    own = stored_tokenizer(*model);
  }
  const Tokenizer& tokenizer = own ? *own : checkpoint->tokenizer();

  if (decode) {
    const std::string text = tokenizer.decode(parse_ids(*decode, tokenizer.vocabulary()), true);
    write_stdout((is_terminal(STDOUT_FILENO) ? terminal_text(text) : text) + "\n");
    return kExitDone;
  }
  const bool spelled = prompt && *prompt != "-";
  if (arguments.has("escape") && !spelled) throw UsageError("--escape: needs a text with -p");
  const auto text = [&] {
    return file                      ? read_prompt(*file)
           : !spelled                ? read_prompt("-")
           : arguments.has("escape") ? without_escapes(*prompt)
                                     : *prompt;
  };
  if (chat) {
    const auto other = arguments.text("chat-template");
    const ChatFormat format(other        ? read_chat_template(*other)
                            : model      ? model->header().chat.chat_template
                            : checkpoint ? checkpoint->header().chat.chat_template
                                         : folder_chat_template(source),
                            ChatSettings(), tokenizer);
    if (!format.can_render())
      throw FileError(
          fmt::format("{}: {}", source, format.fault().empty() ? "has no chat template" : format.fault()));
    const std::vector<ChatMessage> messages = conversation_of(arguments, text);
    // Behind a question a reply is to begin; behind a reply nothing.
    const QuotedText rendered = format.render(messages, messages.back().role != "assistant");
    const std::string shown = is_terminal(STDOUT_FILENO) ? terminal_text(rendered.text) : rendered.text;
    write_stdout(fmt::format("{}\n[{}]\n", shown, fmt::join(tokenizer.encode(rendered), ",")));
    return kExitDone;
  }
  std::vector<uint32_t> ids = tokenizer.encode(text(), arguments.has("parse-special"));
  // A text that spells the begin token has it.
  if (arguments.has("bos") && tokenizer.adds_bos() && tokenizer.bos() &&
      (ids.empty() || ids.front() != *tokenizer.bos()))
    ids.insert(ids.begin(), *tokenizer.bos());
  write_stdout(fmt::format("[{}]\n", fmt::join(ids, ",")));
  return kExitDone;
}

}  // namespace tessera
