// A chat as a JSON file: messages and sampling settings, for /save and /load.
#pragma once

#include <string>
#include <vector>

#include "commands/answer/answer_settings.h"
#include "engine/chat_template/chat_template.h"

namespace tessera {

struct SavedChat {
  std::string model;  // the name of the model it was held with
  std::vector<ChatMessage> messages;
  std::vector<std::pair<std::string, std::string>> settings;
};

// Written whole or not at all. Throws FileError.
void save_chat(const std::string& path, const SavedChat& chat);

// Reads a saved chat whole and checks it: types of fields, alternating roles, names and ranges of settings.
// Throws FileError naming file and field.
SavedChat load_chat(const std::string& path);

}  // namespace tessera
