// How answers are sampled and when they end: the model's own defaults, the command line's wishes, and what
// /set changes, all through one table of named settings.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "commands/arguments.h"
#include "engine/reply.h"
#include "engine/sampling/sampler.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

struct AnswerSettings {
  SamplerSettings sampling;
  ReplyOptions reply;
};

// The model's generation settings where it has them, the tool's own elsewhere; the seed is random.
AnswerSettings default_settings(const ModelHeader& header);

// Sets "temp", "top-k" … from text. Throws UsageError that begins with label and says what is allowed.
void apply_setting(AnswerSettings& settings, std::string_view name, std::string_view value,
                   std::string_view label);
std::vector<std::string> setting_names();
std::vector<std::pair<std::string, std::string>> list_settings(const AnswerSettings& settings);

// Checks every sampling flag without a model, so that a wrong one is refused before anything is loaded.
void check_settings(const Arguments& arguments);
// The defaults with the flags on top; token ids are checked against the vocabulary.
AnswerSettings settings_from(const Arguments& arguments, const ModelHeader& header);

}  // namespace tessera
