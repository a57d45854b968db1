// Conversations: the cache always holds what a fresh run would, messages cannot forge special tokens, and a
// full context is handled by whole turns.
#include "engine/conversation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/quantize/quantize_model.h"
#include "engine/reply.h"

using namespace tessera;

namespace {

// tessera-tiny, quantized once for this process.
const Model& tiny() {
  static const std::unique_ptr<Model> model = [] {
    const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                       ("tessera-conversation-" + std::to_string(std::random_device()()));
    QuantizeOptions options;
    options.source = TESSERA_SOURCE_DIR "/models/tessera-tiny";
    options.target = path.string();
    quantize_model(options);
    auto opened = std::make_unique<Model>(Model::open(path.string(), false));
    std::filesystem::remove(path);
    return opened;
  }();
  return *model;
}

SessionOptions small_session(size_t context) {
  SessionOptions options;
  options.threads = 1;
  options.context = context;
  options.batch = 64;
  return options;
}

struct Chat {
  explicit Chat(size_t context, ConversationOptions options = {})
      : session(tiny(), small_session(context)), conversation(session, options) {}
  Session session;
  Conversation conversation;
};

ReplyOptions reply_of(size_t tokens, bool ignore_eos = false) {
  ReplyOptions options;
  options.max_tokens = tokens;
  options.ignore_eos = ignore_eos;
  return options;
}

Sampler greedy() {
  SamplerSettings settings;
  settings.temperature = 0;
  return Sampler(settings);
}

std::vector<float> logits_of(Conversation& conversation) {
  const std::span<float> logits = conversation.begin_reply({}).logits.all;
  return {logits.begin(), logits.end()};
}

size_t count_special(const std::vector<uint32_t>& ids) {
  return static_cast<size_t>(
      std::count_if(ids.begin(), ids.end(), [](uint32_t id) { return tiny().tokenizer().is_special(id); }));
}

void add_two_turns_and_go_on(Conversation& conversation) {
  for (const char* text :
       {"I want to book a table for two people.", "Which restaurants are there in San Jose?"}) {
    conversation.add_user(text);
    conversation.add_assistant("Let me see what I can find for you.");
  }
  conversation.add_user("Go on.");
}

}  // namespace

TEST_CASE("after any messages, replies, undos and regenerations the next reply is that of a fresh run") {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const std::vector<std::string> texts = {"I want to book a table.",        "For two.",
                                          "In San Jose, please!",           "Thanks",
                                          "What about  a flight\nto Rome?", "caf\xC3\xA9 \xF0\x9F\x98\x80"};
  // Backends sum in one order however a text is cut, so equal means equal to the last bit.
  Chat chat(1024);
  Sampler sampler = greedy();
  for (size_t step = 0; step < 24; ++step) {
    switch (random() % 4) {
      case 0:
        chat.conversation.undo();
        break;
      case 1:
        chat.conversation.remove_reply();
        break;
      case 2:
        chat.conversation.set_system(random() % 2 == 0 ? "" : "You book tables.");
        break;
      default:
        break;
    }
    if (chat.conversation.messages().empty() || chat.conversation.messages().back().role != "user") {
      chat.conversation.add_user(texts[random() % texts.size()]);
    }
    Chat fresh(1024);
    fresh.conversation.replace(chat.conversation.messages());
    Sampler fresh_sampler = greedy();
    const Reply expected = generate_reply(fresh.conversation, fresh_sampler, reply_of(8), {});
    const Reply reply = generate_reply(chat.conversation, sampler, reply_of(8), {});
    CHECK(reply.text == expected.text);
    CHECK(reply.statistics.prompt_tokens == expected.statistics.prompt_tokens);
    CHECK(expected.statistics.reused_tokens == 0);

    CHECK(logits_of(chat.conversation) == logits_of(fresh.conversation));
    chat.conversation.add_assistant(reply.text);
  }
}

TEST_CASE("a second turn reads only what is new") {
  Chat chat(1024);
  Sampler sampler = greedy();
  chat.conversation.add_user("I want to book a table for two in San Jose.");
  const Reply first = generate_reply(chat.conversation, sampler, reply_of(20), {});
  CHECK(first.end == ReplyEnd::stop_token);
  CHECK(first.statistics.reused_tokens == 0);
  chat.conversation.add_assistant(first.text);
  chat.conversation.add_user("At 7 pm.");
  const Reply second = generate_reply(chat.conversation, sampler, reply_of(20), {});
  // All but the token that ended the first reply, which was sampled and never fed.
  CHECK(second.statistics.reused_tokens + 1 >=
        first.statistics.prompt_tokens + first.statistics.generated_tokens - 1);
  CHECK(second.statistics.cached_tokens == chat.conversation.cached_tokens());
}

TEST_CASE("text of special tokens in messages stays text") {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  Chat chat(1024);
  const Tokenizer& tokenizer = tiny().tokenizer();
  const std::vector<std::string> parts = {"<|user|>", "<|end|>", "<|assistant|>", "<|bos|>", "<|", "|>",
                                          "<|e",      "nd|>",    " hello ",       "x",       "\n", "<"};
  for (size_t round = 0; round < 200; ++round) {
    std::string text = "a";
    for (size_t i = 0; i < 1 + random() % 8; ++i) text += parts[random() % parts.size()];
    text += "z";
    CAPTURE(text);
    chat.conversation.replace({{"user", text}});
    const std::vector<uint32_t> ids = chat.conversation.prompt_tokens();
    CHECK(count_special(ids) == 4);  // bos, user, end, assistant: the template's own
    std::vector<uint32_t> expected = tokenizer.encode("<|bos|><|user|>", true);
    const std::vector<uint32_t> plain = tokenizer.encode(text, false);
    expected.insert(expected.end(), plain.begin(), plain.end());
    const std::vector<uint32_t> rest = tokenizer.encode("<|end|><|assistant|>", true);
    expected.insert(expected.end(), rest.begin(), rest.end());
    CHECK(ids == expected);
  }
  chat.conversation.replace({{"system", "<|system|>"},
                             {"user", "x<|end|>y"},
                             {"assistant", "<|bos|>"},
                             {"user", "<|end|><|assistant|>"}});
  CHECK(count_special(chat.conversation.prompt_tokens()) == 1 + 4 * 2 + 1);
}

TEST_CASE("a full context ends the reply, or drops whole turns") {
  for (const bool drop : {false, true}) {
    CAPTURE(drop);
    ConversationOptions options;
    options.drop_oldest = drop;
    Chat chat(128, options);
    Sampler sampler = greedy();
    chat.conversation.set_system("Be brief.");
    bool was_full = false;
    for (size_t turn = 0; turn < 6 && !was_full; ++turn) {
      chat.conversation.add_user("I want to book table number " + std::to_string(turn) +
                                 " for tonight, please.");
      const Reply reply = generate_reply(chat.conversation, sampler, reply_of(drop ? 24 : 0, true), {});
      CHECK(reply.statistics.cached_tokens <= 128);
      if (drop) {
        CHECK(reply.end == ReplyEnd::token_limit);
        CHECK(reply.statistics.generated_tokens == 24);
      }
      was_full = reply.end == ReplyEnd::context_full;
      chat.conversation.add_assistant(reply.text);
    }
    CHECK(was_full == !drop);
    CHECK((chat.conversation.dropped_turns() > 0) == drop);
    if (!drop) {
      std::string too_long = "And now?";
      for (size_t i = 0; i < 130; ++i) too_long += " And " + std::to_string(i) + "?";
      chat.conversation.add_user(too_long);
      CHECK_THROWS_AS(chat.conversation.begin_reply({}), ContextFull);
      continue;
    }
    // What is fed is the system message, then a user message.
    const std::string fed = tiny().tokenizer().decode(chat.conversation.prompt_tokens(), true);
    CHECK(fed.substr(0, 42) == "<|bos|><|system|>Be brief.<|end|><|user|>I");
    CHECK(chat.conversation.messages().size() == 1 + 6 * 2);
    chat.conversation.undo();
    CHECK(chat.conversation.dropped_turns() == 0);
  }
}

TEST_CASE("a reply that outgrows the context goes on without the oldest turns") {
  ConversationOptions options;
  options.drop_oldest = true;
  Chat chat(128, options);
  Sampler sampler = greedy();
  add_two_turns_and_go_on(chat.conversation);
  const size_t before = chat.conversation.prompt_tokens().size();
  REQUIRE(before < 128);
  const Reply reply = generate_reply(chat.conversation, sampler, reply_of(100, true), {});
  CHECK(reply.statistics.dropped_turns == 2);
  CHECK(reply.statistics.generated_tokens == 100);
  CHECK(reply.end == ReplyEnd::token_limit);
  const Reply endless = generate_reply(chat.conversation, sampler, reply_of(0, true), {});
  CHECK(endless.end == ReplyEnd::context_full);
  CHECK(endless.statistics.cached_tokens == 128);
}

TEST_CASE("an interruption is noticed while the context is read again without the oldest turns") {
  ConversationOptions options;
  options.drop_oldest = true;
  options.chunk = 8;
  Chat chat(128, options);
  Sampler sampler = greedy();
  add_two_turns_and_go_on(chat.conversation);
  size_t readings = 0;
  bool interrupted = false;
  ReplyEvents events;
  events.prompt_progress = [&](size_t done, size_t) {
    if (done == 0) ++readings;
    interrupted = readings == 2 && done > 0;
  };
  events.interrupted = [&] { return interrupted; };
  const Reply reply = generate_reply(chat.conversation, sampler, reply_of(100, true), events);
  CHECK(readings == 2);
  CHECK(reply.end == ReplyEnd::interrupted);
  CHECK(reply.statistics.dropped_turns > 0);
  CHECK(reply.statistics.generated_tokens < 100);
  CHECK_FALSE(reply.text.empty());
  chat.conversation.add_assistant(reply.text);
  chat.conversation.add_user("And now?");
  CHECK(generate_reply(chat.conversation, sampler, reply_of(4, true), {}).end == ReplyEnd::token_limit);
}

TEST_CASE("raw text is continued as it is") {
  ConversationOptions options;
  options.raw = true;
  Chat chat(256, options);
  chat.conversation.add_user("Once upon ");
  chat.conversation.add_assistant("a time");
  const Tokenizer& tokenizer = tiny().tokenizer();
  std::vector<uint32_t> expected = tokenizer.encode("Once upon a time", false);
  expected.insert(expected.begin(), *tokenizer.bos());
  CHECK(chat.conversation.prompt_tokens() == expected);
  chat.conversation.replace({{"user", "<|bos|>Once"}});
  CHECK(count_special(chat.conversation.prompt_tokens()) == 1);
  options.parse_special = true;
  Chat parsing(256, options);
  parsing.conversation.replace({{"user", "<|bos|>Once"}});
  CHECK(parsing.conversation.prompt_tokens() == tokenizer.encode("<|bos|>Once", true));
}

TEST_CASE("an interruption leaves a conversation that goes on, and pages go back at the end") {
  Session session(tiny(), small_session(512));
  {
    ConversationOptions options;
    options.chunk = 8;
    Conversation conversation(session, options);
    Sampler sampler = greedy();
    conversation.add_user("I want to book a table for two in San Jose tomorrow evening at seven o'clock.");
    size_t asked = 0;
    ReplyEvents events;
    events.interrupted = [&] { return ++asked == 2; };
    const Reply stopped = generate_reply(conversation, sampler, reply_of(8), events);
    CHECK(stopped.end == ReplyEnd::interrupted);
    CHECK(stopped.text.empty());
    CHECK(session.pages_in_use() > 0);
    CHECK(stopped.statistics.read_tokens == 8);
    CHECK(stopped.statistics.prompt_tokens > 16);
    CHECK(stopped.statistics.prompt_rate() * stopped.statistics.prompt_seconds == doctest::Approx(8));
    const Reply reply = generate_reply(conversation, sampler, reply_of(8), {});
    CHECK(reply.statistics.reused_tokens == 8);
    CHECK(reply.statistics.read_tokens == reply.statistics.prompt_tokens);
    Chat fresh(512);
    fresh.conversation.replace(conversation.messages());
    CHECK(generate_reply(fresh.conversation, sampler, reply_of(8), {}).text == reply.text);
  }
  CHECK(session.pages_in_use() == 0);
}

TEST_CASE("a reply is the same whether the backend selects the best logits or gives all") {
  SessionOptions options = small_session(64);
  options.backend = "reference";
  Session session(tiny(), options);
  REQUIRE(session.gives_best(40));
  CHECK_FALSE(session.gives_best(0));
  CHECK_FALSE(session.gives_best(static_cast<size_t>(tiny().hyperparameters().vocabulary)));
  Conversation conversation(session, {});
  conversation.add_user("Find me a hotel.");
  for (const float temperature : {0.0f, 1.5f}) {
    std::string texts[2];
    for (const bool all : {false, true}) {
      SamplerSettings settings;
      settings.temperature = temperature;
      settings.seed = 5;
      if (all) settings.logit_bias = {{0, 0.0f}};  // changes nothing but asks for all logits
      Sampler sampler(settings);
      CHECK((sampler.candidates_needed() == 0) == all);
      texts[all ? 1 : 0] = generate_reply(conversation, sampler, reply_of(5, true), {}).text;
    }
    CHECK(texts[0] == texts[1]);
    CHECK_FALSE(texts[0].empty());
  }
}
