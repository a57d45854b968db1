// One answer: a prompt from -p, -f or stdin, the reply on stdout, and the process ends.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include "commands/answer/answer.h"
#include "commands/command_line/escapes.h"
#include "commands/commands.h"
#include "commands/files/text_file.h"
#include "commands/hub_model.h"
#include "commands/load_model.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/terminal.h"

namespace tessera {

namespace {

constexpr int kPatienceMilliseconds = 2000;

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == std::string::npos; }

// What standard input has to add to the text of -p: nothing where it is a terminal or was closed.
std::string piped_text() {
  const int mode = fcntl(STDIN_FILENO, F_GETFL);
  if (is_terminal(STDIN_FILENO) || mode < 0 || (mode & O_ACCMODE) == O_WRONLY) return {};
  pollfd input{STDIN_FILENO, POLLIN, 0};
  if (poll(&input, 1, kPatienceMilliseconds) == 0) {
    say("waiting for standard input, which is added to the text of -p; </dev/null leaves it out", Style::dim);
  }
  return read_prompt("-");
}

std::string prompt_from(const Arguments& arguments) {
  const auto text = arguments.text("prompt");
  const auto file = arguments.text("file");
  if (text && file) throw UsageError("-p and -f: expected one of them, found both");
  std::string prompt;
  if (file) {
    prompt = read_prompt(*file);
  } else if (!text || *text == "-") {
    prompt = read_prompt("-");
  } else {
    prompt = arguments.has("escape") ? without_escapes(*text) : *text;
    if (const std::string piped = piped_text(); !is_blank(piped))
      prompt = is_blank(prompt) ? piped : prompt + "\n\n" + piped;
  }
  if (is_blank(prompt)) {
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

  const Model model = open_model(chosen_model(arguments), arguments);
  check_chat_template(model, style);
  const AnswerSettings settings = settings_from(arguments, model.header());
  const std::unique_ptr<Session> session = open_session(model, options);
  Conversation conversation(*session, style);
  if (const auto system = system_message(arguments)) give_system(conversation, model, *system);
  if (verbose) say_settings(*session, settings);
  if (!verbose && drawn_seed(arguments)) say(fmt::format("seed: {}", settings.sampling.seed), Style::dim);
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
