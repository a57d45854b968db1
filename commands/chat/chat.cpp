// The conversation at a terminal: messages, slash commands, and Ctrl-C that stops a reply.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>

#include "commands/answer/answer.h"
#include "commands/chat/saved_chat.h"
#include "commands/command_line/nearest_name.h"
#include "commands/commands.h"
#include "commands/hub_model.h"
#include "commands/load_model.h"
#include "commands/terminal/interrupt.h"
#include "commands/terminal/line_reader.h"
#include "commands/terminal/terminal.h"
#include "engine/readable_bytes.h"

namespace tessera {

namespace {

constexpr const char* kHelpText =
    "/help            this list\n"
    "/clear           forget the conversation, keep the system message\n"
    "/system TEXT     set the system message; without a text, remove it\n"
    "/regen           another answer to the last message\n"
    "/undo            take back the last message and its answer\n"
    "/set NAME VALUE  change a sampling setting; without arguments, list them\n"
    "/stats           figures of this chat\n"
    "/save FILE       write messages and settings to a file\n"
    "/load FILE       go on with a saved chat\n"
    "/bye             leave (/exit, /quit, exit, quit and Ctrl-D do too)\n"
    "Several lines: end a line with \\, or write between \"\"\" and \"\"\" (which is also how a message may "
    "begin\n"
    "with /). Ctrl-C stops an answer; again at an empty prompt, it leaves.";

// A path that begins with ~/ as a shell would have it.
std::string with_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  return path.starts_with("~/") && home != nullptr ? home + path.substr(1) : path;
}

class Chat {
 public:
  Chat(const Arguments& arguments, const Model& model, Session& session, AnswerSettings settings)
      : model_(model),
        settings_(std::move(settings)),
        sampler_(settings_.sampling),
        conversation_(session, conversation_options(arguments)),
        statistics_(!arguments.has("no-stats")) {
    if (const auto system = system_message(arguments)) give_system(conversation_, model, *system);
  }

  bool raw() const { return conversation_.raw(); }
  bool was_interrupted() const { return interrupted_; }  // the last message or command

  // Answers a message; one that cannot be answered is removed again.
  void message(std::string text) {
    interrupted_ = false;
    conversation_.add_user(std::move(text));
    bool answered = false;
    try {
      answered = answer();
    } catch (...) {
      conversation_.undo();
      throw;
    }
    if (!answered) conversation_.undo();
  }

  // False when the chat is to end.
  bool command(const std::string& line) {
    interrupted_ = false;
    const size_t space = line.find_first_of(" \t\n");
    const std::string name = line.substr(0, space);
    std::string argument = space == std::string::npos ? "" : line.substr(space + 1);
    argument.erase(0, std::min(argument.find_first_not_of(" \t"), argument.size()));
    argument.resize(argument.find_last_not_of(" \t\n") + 1);

    struct Command {
      const char* name;
      void (Chat::*run)(const std::string&);
      enum class Takes { nothing, text, file } takes;
    };
    using Takes = Command::Takes;
    static constexpr std::array commands = {
        Command{"/help", &Chat::help, Takes::nothing},   Command{"/clear", &Chat::clear, Takes::nothing},
        Command{"/system", &Chat::system, Takes::text},  Command{"/regen", &Chat::regenerate, Takes::nothing},
        Command{"/undo", &Chat::undo, Takes::nothing},   Command{"/set", &Chat::set, Takes::text},
        Command{"/stats", &Chat::stats, Takes::nothing}, Command{"/save", &Chat::save, Takes::file},
        Command{"/load", &Chat::load, Takes::file},      Command{"/bye", nullptr, Takes::nothing},
        Command{"/exit", nullptr, Takes::nothing},       Command{"/quit", nullptr, Takes::nothing},
        Command{"/?", &Chat::help, Takes::nothing}};
    const auto found = std::find_if(commands.begin(), commands.end(),
                                    [&](const Command& command) { return command.name == name; });
    if (found == commands.end()) {
      std::vector<std::string> names;
      for (const Command& command : commands) names.emplace_back(command.name);
      const std::string nearest = nearest_name(name, names);
      throw UsageError(
          fmt::format("unknown command {}{}", name,
                      nearest.empty() ? "; /help lists them" : fmt::format(", did you mean {}?", nearest)));
    }
    if (found->takes == Takes::nothing && !argument.empty()) {
      throw UsageError(fmt::format("{}: takes nothing, found '{}'", name, argument));
    }
    if (found->takes == Takes::file && argument.empty())
      throw UsageError(fmt::format("{}: a file is missing", name));
    if (found->run == nullptr) return false;
    (this->*found->run)(found->takes == Takes::file ? with_home(argument) : argument);
    return true;
  }

 private:
  bool answer() {
    Reply reply;
    try {
      reply = show_reply(conversation_, sampler_, settings_.reply);
    } catch (const ContextFull& full) {
      say(fmt::format("context full: {}; /undo, /clear or --overflow drop-oldest make room", full.what()),
          Style::warning);
      return false;
    } catch (const TemplateError& error) {
      say(one_line(error.what()), Style::warning);
      return false;
    }
    latest_ = reply.statistics;
    generated_ += reply.statistics.generated_tokens;
    ++replies_;
    if (statistics_) say(statistics_line(reply.statistics), Style::dim);
    const bool stopped = reply.end == ReplyEnd::interrupted;
    interrupted_ = stopped;
    if (stopped) InterruptScope::clear();
    if (stopped && reply.text.empty()) {
      say("stopped before the answer began: the message is taken back", Style::dim);
      return false;
    }
    conversation_.add_assistant(reply.text);
    return true;
  }

  void help(const std::string&) { say(kHelpText); }

  void clear(const std::string&) {
    conversation_.clear();
    say("cleared", Style::dim);
  }

  void system(const std::string& text) {
    if (conversation_.raw()) throw UsageError("/system: this chat has no template to put it in");
    give_system(conversation_, model_, text);
    say(text.empty() ? "system message removed" : "system message set", Style::dim);
  }

  void regenerate(const std::string&) {
    std::vector<ChatMessage> before = conversation_.messages();
    conversation_.remove_reply();
    if (conversation_.messages().empty() || conversation_.messages().back().role != "user") {
      throw UsageError("/regen: there is no message to answer yet");
    }
    bool answered = false;
    try {
      answered = answer();
    } catch (...) {
      conversation_.replace(std::move(before));
      throw;
    }
    if (!answered) conversation_.replace(std::move(before));
  }

  void undo(const std::string&) {
    if (!conversation_.undo()) throw UsageError("/undo: there is nothing to take back");
    say("taken back", Style::dim);
  }

  void set(const std::string& text) {
    const size_t space = text.find_first_of(" \t");
    if (text.empty()) {
      for (const auto& [name, value] : list_settings(settings_)) say(fmt::format("{:<15} {}", name, value));
      return;
    }
    const std::string name = text.substr(0, space);
    const std::string value = space == std::string::npos
                                  ? ""
                                  : text.substr(std::min(text.find_first_not_of(" \t", space), text.size()));
    apply_setting(settings_, name, value, fmt::format("/set {}", name));
    sampler_.configure(settings_.sampling);
    if (name == "seed") sampler_.reseed(settings_.sampling.seed);
    for (const auto& [each, held] : list_settings(settings_))
      if (each == name) say(fmt::format("{} is {}", name, held), Style::dim);
  }

  void stats(const std::string&) {
    if (replies_ > 0) say(statistics_line(latest_));
    const Session& session = conversation_.session();
    const MemoryFigures& memory = session.memory();
    say(fmt::format(
        "{} messages, {} answers, {} tokens generated; KV {}/{} tokens at {} bits; weights {}, KV cache {}, "
        "activations {}",
        conversation_.messages().size(), replies_, generated_, conversation_.cached_tokens(),
        session.context(), memory.kv_bits, readable_bytes(memory.weight_bytes),
        readable_bytes(memory.kv_bytes), readable_bytes(memory.activation_bytes)));
  }

  void save(const std::string& path) {
    save_chat(path, {model_.header().name, conversation_.messages(), list_settings(settings_)});
    say(fmt::format("saved {} messages to {}", conversation_.messages().size(), path), Style::dim);
  }

  void load(const std::string& path) {
    SavedChat chat = load_chat(path);
    if (conversation_.raw() && !chat.messages.empty() && chat.messages.front().role == "system") {
      throw UsageError(
          fmt::format("{}: has a system message, and this chat has no template to put it in", path));
    }
    // An unanswered message at the end would be followed by another one of the user.
    if (!chat.messages.empty() && chat.messages.back().role == "user") chat.messages.pop_back();
    for (const auto& [name, value] : chat.settings) apply_setting(settings_, name, value, name);
    sampler_ = Sampler(settings_.sampling);
    conversation_.replace(std::move(chat.messages));
    say(fmt::format(
            "loaded {} messages from {}{}", conversation_.messages().size(), path,
            chat.model == model_.header().name ? "" : fmt::format(" (held with {})", one_line(chat.model))),
        Style::dim);
  }

  const Model& model_;
  AnswerSettings settings_;
  Sampler sampler_;
  Conversation conversation_;
  bool statistics_;
  bool interrupted_ = false;
  ReplyStatistics latest_;
  size_t replies_ = 0;
  size_t generated_ = 0;
};

}  // namespace

int run_chat(const Arguments& arguments) {
  check_settings(arguments);
  const SessionOptions options = session_options(arguments);
  conversation_options(arguments);  // a wrong flag is refused before anything is loaded
  const Model model = open_model(chosen_model(arguments), arguments);
  check_chat_template(model, conversation_options(arguments));
  AnswerSettings settings = settings_from(arguments, model.header());
  const std::unique_ptr<Session> session = open_session(model, options);

  const InterruptScope interrupts;
  LineReader reader;
  Chat chat(arguments, model, *session, std::move(settings));
  say(fmt::format("tessera {} · {} {} · {} tokens of context · {}", kVersion, one_line(model.header().name),
                  one_line(model.header().quantization.scheme), session->context(),
                  chat.raw() ? "no chat template: your text is continued as it is · /help"
                             : "/help lists the commands"),
      Style::dim);
  if (arguments.has("verbose")) {
    say_settings(*session, settings);
  } else if (drawn_seed(arguments)) {
    say(fmt::format("seed: {}", settings.sampling.seed), Style::dim);
  }

  bool warned = false;  // Ctrl-C was pressed since the last message
  for (;;) {
    TypedMessage typed = reader.read();
    if (typed.kind == TypedMessage::Kind::end) return kExitDone;
    if (typed.kind == TypedMessage::Kind::interrupted) {
      if (typed.was_empty && warned) return kExitInterrupted;
      if (typed.was_empty) say("Ctrl-C again leaves, as does /bye", Style::dim);
      warned = true;
      continue;
    }
    warned = false;
    if (typed.text.find_first_not_of(" \t\n") == std::string::npos) continue;
    try {
      if (!typed.verbatim && (typed.text == "exit" || typed.text == "quit")) return kExitDone;
      const bool is_command =
          !typed.verbatim && typed.text.front() == '/' && typed.text.find('\n') == std::string::npos;
      if (!is_command) {
        chat.message(std::move(typed.text));
      } else if (!chat.command(typed.text)) {
        return kExitDone;
      }
    } catch (const std::runtime_error& error) {
      say(one_line(error.what()), Style::warning);
    }
    // A reply that Ctrl-C stopped counts as the first of the two that leave.
    warned = chat.was_interrupted();
  }
}

}  // namespace tessera
