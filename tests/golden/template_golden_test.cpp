// Compares rendered chat templates with Jinja's output (templates.json, made by make_template_golden.py).
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/chat_template/chat_template.h"

namespace {

using nlohmann::json;

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

std::vector<tessera::ChatMessage> messages_of(const json& conversation) {
  std::vector<tessera::ChatMessage> messages;
  for (const json& message : conversation) {
    messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
  }
  return messages;
}

}  // namespace

TEST_CASE("chat templates render as Jinja does") {
  const json golden = read_json(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/golden/templates.json");
  const json& conversations = golden.at("conversations");
  size_t compared = 0;
  for (const json& entry : golden.at("templates")) {
    const std::string name = entry.at("name");
    CAPTURE(name);
    std::string source;
    if (entry.contains("path")) {
      const std::filesystem::path path =
          std::filesystem::path(TESSERA_SHARED_DIR) / entry.at("path").get<std::string>();
      if (!std::filesystem::exists(path)) {
        std::cout << "skipped: " << path.string() << " is not there\n";
        continue;
      }
      source = read_json(path).at("chat_template").get<std::string>();
    } else {
      source = entry.at("source").get<std::string>();
    }
    const tessera::ChatTemplate chat_template(source);
    const json& outputs = entry.at("outputs");
    REQUIRE(outputs.size() == conversations.size() * 2);
    for (size_t i = 0; i < outputs.size(); ++i) {
      CAPTURE(i);
      const std::vector<tessera::ChatMessage> messages = messages_of(conversations.at(i / 2));
      tessera::TemplateInputs inputs;
      inputs.bos_token = entry.at("bos");
      inputs.eos_token = entry.at("eos");
      inputs.add_generation_prompt = i % 2 == 1;
      inputs.date = golden.at("date");
      if (outputs[i].is_null()) {
        CHECK_THROWS_AS(chat_template.render(messages, inputs), tessera::TemplateError);
      } else {
        CHECK(chat_template.render(messages, inputs).text == outputs[i].get<std::string>());
      }
      ++compared;
    }
  }
  CHECK(compared > 200);
}

TEST_CASE("each feature of templates does what it does in Jinja") {
  const json golden = read_json(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/golden/templates.json");
  const std::vector<tessera::ChatMessage> messages = messages_of(golden.at("piece_conversation"));
  for (const json& piece : golden.at("pieces")) {
    const std::string source = piece.at("source");
    CAPTURE(source);
    const auto rendered = [&] {
      return tessera::ChatTemplate(source).render(messages, {"<s>", "</s>", true, ""}).text;
    };
    if (piece.at("output").is_null()) {
      CHECK_THROWS_AS(rendered(), tessera::TemplateError);
    } else {
      CHECK(rendered() == piece.at("output").get<std::string>());
    }
  }
  CHECK(golden.at("pieces").size() > 40);
}
