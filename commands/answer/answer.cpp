#include "commands/answer/answer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>

#include "commands/command_line/escapes.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"
#include "engine/model.h"

namespace tessera {

namespace {

std::string rate(double tokens_per_second) {
  return tokens_per_second > 0 ? fmt::format(" ({:.1f} tokens/s)", tokens_per_second) : "";
}

}  // namespace

Reply show_reply(Conversation& conversation, Sampler& sampler, const ReplyOptions& options) {
  const bool terminal = is_terminal(STDOUT_FILENO);
  std::optional<ProgressBar> progress;
  bool begun = false;
  ReplyEvents events;
  events.text = [&](std::string_view text) {
    begun = true;
    write_stdout(terminal ? terminal_text(text) : std::string(text));
  };
  events.interrupted = [] { return InterruptScope::requested(); };
  events.prompt_progress = [&](size_t done, size_t total) {
    if (terminal && begun) return;  // a bar would overwrite the line that is being written
    if (done == total) {
      progress.reset();
      return;
    }
    if (!progress) progress.emplace("reading the prompt");
    progress->update(done, total);
  };
  const size_t dropped_before = conversation.dropped_turns();
  const Reply reply = generate_reply(conversation, sampler, options, events);
  progress.reset();
  write_stdout("\n");
  const ReplyStatistics& statistics = reply.statistics;
  if (statistics.dropped_turns > dropped_before) {
    say(fmt::format(
            "context full ({} tokens): the oldest {} of the conversation no longer count", statistics.context,
            statistics.dropped_turns == 1 ? "turn" : fmt::format("{} turns", statistics.dropped_turns)),
        Style::warning);
  }
  if (reply.end == ReplyEnd::context_full) {
    say(fmt::format("context full: the answer stops here, at {} of {} tokens", statistics.cached_tokens,
                    statistics.context),
        Style::warning);
  }
  return reply;
}

void say_settings(const Session& session, const AnswerSettings& settings) {
  const ModelHeader& header = session.model().header();
  say(fmt::format("model: {}, {}; backend: {}", one_line(header.name), one_line(header.quantization.scheme),
                  session.backend_description()),
      Style::dim);
  for (const auto& [name, value] : list_settings(settings))
    say(fmt::format("{}: {}", name, value), Style::dim);
}

std::string statistics_line(const ReplyStatistics& statistics) {
  const std::string reused =
      statistics.reused_tokens > 0 ? fmt::format(", {} of them cached", statistics.reused_tokens) : "";
  const std::string read =
      statistics.read_tokens < statistics.prompt_tokens ? fmt::format("{} of ", statistics.read_tokens) : "";
  const std::string first =
      statistics.generated_tokens > 0
          ? fmt::format(" · first token {:.0f} ms", statistics.first_token_seconds * 1e3)
          : "";
  return fmt::format("prompt {}{} tokens{}{} · reply {} tokens{}{} · KV {}/{} tokens", read,
                     statistics.prompt_tokens, reused, rate(statistics.prompt_rate()),
                     statistics.generated_tokens, rate(statistics.generate_rate()), first,
                     statistics.cached_tokens, statistics.context);
}

void check_chat_template(const Model& model, const ConversationOptions& options) {
  const ChatFormat& chat = model.chat();
  if (options.raw || chat.fault().empty()) return;
  throw std::runtime_error(fmt::format("{}: {}: --chat-template FILE gives another, --raw does without",
                                       model.file().path(), chat.fault()));
}

void give_system(Conversation& conversation, const Model& model, const std::string& text) {
  if (conversation.raw()) throw std::runtime_error("--system: the model has no chat template to put it in");
  conversation.set_system(text);
  if (!text.empty() && !model.chat().takes_system())
    say("the chat template knows no system message: it goes before the first message", Style::dim);
}

std::optional<std::string> system_message(const Arguments& arguments) {
  const auto text = arguments.text("system");
  return text && arguments.has("escape") ? without_escapes(*text) : text;
}

bool drawn_seed(const Arguments& arguments) { return arguments.text("seed") == "-1"; }

ConversationOptions conversation_options(const Arguments& arguments) {
  if (arguments.has("escape") && arguments.text("prompt").value_or("-") == "-" && !arguments.has("system") &&
      !arguments.has("stop"))
    throw UsageError("--escape: needs a text with -p, --system or --stop");
  ConversationOptions options;
  options.raw = arguments.has("raw");
  options.parse_special = arguments.has("parse-special");
  if (options.parse_special && !options.raw) {
    throw UsageError("--parse-special: needs --raw; a chat message never turns into special tokens");
  }
  options.drop_oldest = arguments.choice("overflow") == "drop-oldest";
  if (options.raw && arguments.has("system")) {
    throw UsageError("--system: needs the chat template that --raw leaves out");
  }
  if (options.raw && arguments.has("chat-template"))
    throw UsageError("--chat-template: has no meaning with --raw");
  if (const auto batch = arguments.integer("batch", 1, 65536)) options.chunk = *batch;
  return options;
}

}  // namespace tessera
