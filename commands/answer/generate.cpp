// One answer: a prompt from -p, -f or stdin, the reply on stdout, and the process ends.
#include <fmt/format.h>

#include "commands/answer/answer.h"
#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/load_model.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"

namespace tessera {

namespace {

std::string prompt_from(const Arguments& arguments) {
  const auto text = arguments.text("prompt");
  const auto file = arguments.text("file");
  if (text && file) throw UsageError("-p and -f: expected one of them, found both");
  std::string prompt = file ? read_prompt(*file) : text && *text != "-" ? *text : read_prompt("-");
  if (prompt.find_first_not_of(" \t\r\n") == std::string::npos) {
    throw UsageError("the prompt is empty: give a text with -p, -f or on stdin");
  }
  return prompt;
}

}  // namespace

int run_generate(const Arguments& arguments) {
  check_settings(arguments);
  const SessionOptions options = session_options(arguments);
  const ConversationOptions style = conversation_options(arguments);
  std::string prompt = prompt_from(arguments);
  const bool verbose = arguments.has("verbose");

  const Model model = open_model(arguments.text("model"), arguments);
  check_chat_template(model, style);
  const AnswerSettings settings = settings_from(arguments, model.header());
  const std::unique_ptr<Session> session = open_session(model, options);
  Conversation conversation(*session, style);
  if (const auto system = arguments.text("system")) give_system(conversation, model, *system);
  if (verbose) say_settings(*session, settings);
  conversation.add_user(std::move(prompt));
  if (verbose) say(fmt::format("prompt: {} tokens", conversation.prompt_tokens().size()), Style::dim);

  const InterruptScope interrupts;
  Sampler sampler(settings.sampling);
  const Reply reply = show_reply(conversation, sampler, settings.reply);
  if (verbose && reply.end == ReplyEnd::token_limit) {
    say(fmt::format("stopped at --max-tokens {}", settings.reply.max_tokens), Style::dim);
  }
  if (!arguments.has("no-stats")) say(statistics_line(reply.statistics), Style::dim);
  return reply.end == ReplyEnd::interrupted ? kExitInterrupted : kExitDone;
}

}  // namespace tessera
