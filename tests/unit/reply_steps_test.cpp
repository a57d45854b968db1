// Replies driven step by step: several over one session, in turn and in one batch, are the same as each
// alone.
#include "engine/reply_steps.h"

#include <doctest/doctest.h>

#include <array>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/quantize/quantize_model.h"
#include "engine/reply.h"
#include "engine/session.h"

using namespace tessera;

namespace {

// tessera-tiny, quantized once for this process.
const Model& tiny() {
  static const std::unique_ptr<Model> model = [] {
    const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                       ("tessera-reply-steps-" + std::to_string(std::random_device()()));
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

struct Request {
  std::string message;
  SamplerSettings sampling;
  ReplyOptions options;
};

std::array<Request, 2> requests() {
  std::array<Request, 2> both;
  both[0].message = "I want to book a table for two people in San Jose.";
  both[0].sampling.temperature = 0;
  both[0].options.max_tokens = 24;
  both[0].options.ignore_eos = true;
  both[1].message = "Find me a hotel.";
  both[1].sampling.temperature = 1.2f;
  both[1].sampling.seed = 7;
  both[1].options.max_tokens = 40;
  both[1].options.stops = {"?"};
  return both;
}

SessionOptions session_options() {
  SessionOptions options;
  options.threads = 1;
  options.context = 1024;
  return options;
}

// A request that is being answered in a session that it shares.
struct Answer {
  Answer(const Request& request, Session& session)
      : sampler(request.sampling), conversation(session, {}), sequence(session.create_sequence()) {
    conversation.add_user(request.message);
    prompt = conversation.prompt_tokens();
    steps = std::make_unique<ReplySteps>(tiny(), sampler, request.options, prompt, false);
    next = prompt;
  }
  void accept(std::span<float> logits) {
    const ReplySteps::Step step = steps->step({logits, {}});
    text += step.text;
    finished = step.finished;
    next = {step.token};
  }

  Sampler sampler;
  Conversation conversation;  // only renders the prompt
  SequenceId sequence;
  std::vector<uint32_t> prompt;
  std::unique_ptr<ReplySteps> steps;
  std::vector<uint32_t> next;  // tokens to be run
  std::string text;
  bool finished = false;
};

void check_same(const Answer& answer, const Reply& alone) {
  CHECK(answer.text == alone.text);
  CHECK(answer.steps->end() == alone.end);
  CHECK(answer.steps->generated_tokens() == alone.statistics.generated_tokens);
}

}  // namespace

TEST_CASE("two replies over one session are those of each alone") {
  const std::array<Request, 2> both = requests();
  std::vector<Reply> alone;
  for (const Request& request : both) {
    Session session(tiny(), session_options());
    Conversation conversation(session, {});
    conversation.add_user(request.message);
    Sampler sampler(request.sampling);
    alone.push_back(generate_reply(conversation, sampler, request.options, {}));
    CHECK_FALSE(alone.back().text.empty());
  }
  for (const bool in_one_batch : {false, true}) {
    CAPTURE(in_one_batch);
    Session session(tiny(), session_options());
    std::array<Answer, 2> answers = {Answer(both[0], session), Answer(both[1], session)};
    while (!answers[0].finished || !answers[1].finished) {
      std::vector<Answer*> running;
      for (Answer& answer : answers) {
        if (!answer.finished) running.push_back(&answer);
      }
      std::vector<SequenceInput> inputs;
      for (const Answer* answer : running) inputs.push_back({answer->sequence, answer->next});
      if (in_one_batch) {
        const std::span<float> logits = session.run(inputs);
        const size_t columns = logits.size() / running.size();
        for (size_t i = 0; i < running.size(); ++i) running[i]->accept(logits.subspan(i * columns, columns));
      } else {
        for (size_t i = 0; i < running.size(); ++i) running[i]->accept(session.run({&inputs[i], 1}));
      }
    }
    for (size_t i = 0; i < answers.size(); ++i) check_same(answers[i], alone[i]);
  }
}

TEST_CASE("a reply that is ended from outside shows what was held back") {
  Session session(tiny(), session_options());
  Request request = requests()[0];
  request.options.max_tokens = 0;
  Answer first(request, session);
  for (size_t i = 0; i < 6; ++i) {
    const SequenceInput input{first.sequence, first.next};
    first.accept(session.run({&input, 1}));
  }
  CHECK(first.steps->finish(ReplyEnd::interrupted) == "");
  CHECK(first.steps->end() == ReplyEnd::interrupted);
  REQUIRE_FALSE(first.text.empty());

  // All of this reply could be the beginning of the stop text, so all of it is held back.
  request.options.stops = {first.text + "never"};
  Answer held(request, session);
  for (size_t i = 0; i < 6; ++i) {
    const SequenceInput input{held.sequence, held.next};
    held.accept(session.run({&input, 1}));
  }
  CHECK(held.text == "");
  CHECK(held.steps->finish(ReplyEnd::context_full) == first.text);
  CHECK(held.steps->end() == ReplyEnd::context_full);
}
