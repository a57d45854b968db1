// How answers are sampled and when they end: the model's defaults, the flags of the command line, and what
// /set changes, all through one table of named settings.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "commands/command_line/arguments.h"
#include "engine/reply.h"
#include "engine/sampling/sampler.h"
#include "gguf-like-format/model_header.h"

namespace tessera {

struct AnswerSettings {
  SamplerSettings sampling;
  ReplyOptions reply;
};

// The model's generation settings where it has them, those of SamplerSettings elsewhere; the seed is random.
AnswerSettings default_settings(const ModelHeader& header);

// Sets the setting of that name ("temp", "top-k", …) from text. Throws a UsageError that begins with label
// and says what is allowed.
void apply_setting(AnswerSettings& settings, std::string_view name, std::string_view value,
                   std::string_view label);
std::vector<std::string> setting_names();
std::vector<std::pair<std::string, std::string>> list_settings(const AnswerSettings& settings);

// Checks every sampling flag before a model is loaded. Throws UsageError.
void check_settings(const Arguments& arguments);
// The defaults, overridden by the flags. Throws UsageError, also for token ids beyond the vocabulary.
AnswerSettings settings_from(const Arguments& arguments, const ModelHeader& header);

}  // namespace tessera
