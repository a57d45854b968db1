// Text to token ids and back, with the tokenizer of a .tess file or of a checkpoint, which is not converted
// for it.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "commands/command_line/escapes.h"
#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/load_model.h"
#include "commands/terminal/terminal.h"
#include "engine/checkpoint/checkpoint_source.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/tess/tess_file.h"

namespace tessera {

namespace {

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
  const std::string text = file                      ? read_prompt(*file)
                           : !spelled                ? read_prompt("-")
                           : arguments.has("escape") ? without_escapes(*prompt)
                                                     : *prompt;
  std::vector<uint32_t> ids = tokenizer.encode(text, arguments.has("parse-special"));
  if (arguments.has("bos") && tokenizer.adds_bos() && tokenizer.bos())
    ids.insert(ids.begin(), *tokenizer.bos());
  write_stdout(fmt::format("[{}]\n", fmt::join(ids, ",")));
  return kExitDone;
}

}  // namespace tessera
