#include "commands/chat/saved_chat.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands/files/text_file.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

constexpr size_t kMostMessageBytes = size_t{32} << 20;
constexpr size_t kMostSettingBytes = 64;
constexpr uint64_t kFormatVersion = 1;

}  // namespace

void save_chat(const std::string& path, const SavedChat& chat) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const ChatMessage& message : chat.messages) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  nlohmann::ordered_json settings = nlohmann::ordered_json::object();
  for (const auto& [name, value] : chat.settings) settings[name] = value;
  const nlohmann::ordered_json json = {{"tessera_chat", kFormatVersion},
                                       {"model", chat.model},
                                       {"messages", messages},
                                       {"settings", settings}};
  // Typed text may be invalid UTF-8: its invalid bytes are stored as U+FFFD.
  write_text(path, json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

SavedChat load_chat(const std::string& path) {
  const nlohmann::json json = read_strict_json(path);
  const JsonFields fields(json, path, "");
  fields.integer("tessera_chat", kFormatVersion, kFormatVersion);
  SavedChat chat;
  chat.model = fields.text("model", kMostSettingBytes * 64);

  const nlohmann::json& messages = fields.array("messages");
  std::string expected = "user";
  for (size_t i = 0; i < messages.size(); ++i) {
    const JsonFields message(messages[i], path, fmt::format("messages[{}]", i));
    const std::string role = message.text("role", kMostSettingBytes);
    const bool system = i == 0 && role == "system";
    if (!system && role != expected)
      message.refuse("role", fmt::format("\"{}\"", expected), fmt::format("\"{}\"", role));
    if (!system) expected = role == "user" ? "assistant" : "user";
    chat.messages.push_back({role, message.text("content", kMostMessageBytes)});
  }

  const JsonFields settings = fields.object("settings");
  for (const auto& [name, value] : fields.require("settings").items()) {
    const std::string text = settings.text(name, kMostSettingBytes);
    AnswerSettings scratch;
    try {
      apply_setting(scratch, name, text, settings.label(name));
    } catch (const UsageError& error) {
      throw FileError(fmt::format("{}: {}", path, error.what()));
    }
    chat.settings.emplace_back(name, text);
  }
  return chat;
}

}  // namespace tessera
