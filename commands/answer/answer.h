// Shows one reply while it is generated, with its notes and figures: shared by chat and one-shot answers.
#pragma once

#include <optional>
#include <string>

#include "commands/answer/answer_settings.h"
#include "engine/conversation.h"
#include "engine/model.h"
#include "engine/reply.h"

namespace tessera {

// Writes the reply to stdout while it is generated and why it ended early to stderr. Ctrl-C ends it when an
// InterruptScope is alive.
Reply show_reply(Conversation& conversation, Sampler& sampler, const ReplyOptions& options);

// Writes the model, its backend and every setting with its value to stderr, for --verbose.
void say_settings(const Session& session, const AnswerSettings& settings);

// One line: tokens and tokens/s of prompt and reply, time to the first token, KV cache in use.
std::string statistics_line(const ReplyStatistics& statistics);

// Throws where the model has a chat template that cannot be read and the options ask for it.
void check_chat_template(const Model& model, const ConversationOptions& options);
// Sets the system message and says where it goes when the model's template has no place for it. Throws
// without a template.
void give_system(Conversation& conversation, const Model& model, const std::string& text);

// The text of --system, as --escape says.
std::optional<std::string> system_message(const Arguments& arguments);

// Whether --seed asks for a random number, which is then worth telling.
bool drawn_seed(const Arguments& arguments);

// Conversation options from --raw, --parse-special, --overflow and --batch.
ConversationOptions conversation_options(const Arguments& arguments);

}  // namespace tessera
