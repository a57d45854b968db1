#include "commands/answer/answer_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <random>

#include "commands/command_line/escapes.h"
#include "commands/command_line/nearest_name.h"

namespace tessera {

namespace {

constexpr uint64_t kMostTokens = uint64_t{1} << 32;
constexpr uint64_t kMostTopK = 1'000'000;
constexpr double kMostBias = 1000;
constexpr uint64_t kMostSeed = std::numeric_limits<uint64_t>::max();
constexpr size_t kAllTokens = std::numeric_limits<size_t>::max();
constexpr uint64_t kMostWindow = uint64_t{1} << 32;
constexpr std::string_view kNoLimit = "none";
constexpr std::string_view kAnyValue = "-1";  // as llama.cpp spells no limit, all and random

uint64_t random_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

float real(std::string_view label, std::string_view text, double least, double most) {
  return static_cast<float>(parse_real(label, text, least, most));
}

struct Setting {
  const char* name;
  void (*set)(AnswerSettings&, std::string_view label, std::string_view text);
  std::string (*get)(const AnswerSettings&);
};

using Text = std::string_view;

constexpr std::array kSettings = {
    Setting{
        "temp",
        [](AnswerSettings& s, Text label, Text text) { s.sampling.temperature = real(label, text, 0, 10); },
        [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.temperature); }},
    Setting{"top-k",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.top_k = parse_integer(label, text, 0, kMostTopK);
            },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.top_k); }},
    Setting{"top-p",
            [](AnswerSettings& s, Text label, Text text) { s.sampling.top_p = real(label, text, 0.0001, 1); },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.top_p); }},
    Setting{"min-p",
            [](AnswerSettings& s, Text label, Text text) { s.sampling.min_p = real(label, text, 0, 1); },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.min_p); }},
    Setting{"repeat-penalty",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.repeat_penalty = real(label, text, 0.01, 10);
            },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.repeat_penalty); }},
    Setting{"repeat-last-n",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.penalty_window =
                  text == kAnyValue ? kAllTokens : parse_integer(label, text, 0, kMostWindow);
            },
            [](const AnswerSettings& s) {
              return s.sampling.penalty_window == kAllTokens ? std::string(kAnyValue)
                                                             : fmt::format("{}", s.sampling.penalty_window);
            }},
    Setting{"presence",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.presence_penalty = real(label, text, -100, 100);
            },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.presence_penalty); }},
    Setting{"frequency",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.frequency_penalty = real(label, text, -100, 100);
            },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.frequency_penalty); }},
    Setting{"seed",
            [](AnswerSettings& s, Text label, Text text) {
              s.sampling.seed = text == kAnyValue ? random_seed() : parse_integer(label, text, 0, kMostSeed);
            },
            [](const AnswerSettings& s) { return fmt::format("{}", s.sampling.seed); }},
    Setting{"max-tokens",
            [](AnswerSettings& s, Text label, Text text) {
              s.reply.max_tokens =
                  text == kNoLimit || text == kAnyValue ? 0 : parse_integer(label, text, 1, kMostTokens);
            },
            [](const AnswerSettings& s) {
              return s.reply.max_tokens == 0 ? std::string(kNoLimit) : fmt::format("{}", s.reply.max_tokens);
            }},
};

// "15+2.5", "15-1" or "15-inf".
std::pair<uint32_t, float> parse_bias(std::string_view text, uint64_t vocabulary) {
  const size_t sign = text.find_first_of("+-");
  if (sign == std::string_view::npos || sign == 0 || sign + 1 == text.size()) {
    throw UsageError(
        fmt::format("--logit-bias: expected ID+X or ID-X such as 15+2.5 or 15-inf, found '{}'", text));
  }
  const auto id =
      static_cast<uint32_t>(parse_integer("--logit-bias: token id", text.substr(0, sign), 0, vocabulary - 1));
  const std::string_view amount = text.substr(sign + 1);
  if (amount == "inf" && text[sign] == '-') return {id, -std::numeric_limits<float>::infinity()};
  const double size = parse_real("--logit-bias: amount", amount, 0, kMostBias);
  return {id, static_cast<float>(text[sign] == '-' ? -size : size)};
}

void apply_flags(AnswerSettings& settings, const Arguments& arguments, uint64_t vocabulary) {
  for (const Setting& setting : kSettings) {
    if (const auto value = arguments.text(setting.name)) {
      setting.set(settings, fmt::format("--{}", setting.name), *value);
    }
  }
  settings.reply.ignore_eos = arguments.has("ignore-eos");
  settings.reply.stops = arguments.all("stop");
  if (arguments.has("escape")) {
    for (std::string& stop : settings.reply.stops) stop = without_escapes(stop);
  }
  for (const std::string& stop : settings.reply.stops) {
    if (stop.empty()) throw UsageError("--stop: expected a text of at least one character, found ''");
  }
  for (const std::string& bias : arguments.all("logit-bias")) {
    settings.sampling.logit_bias.push_back(parse_bias(bias, vocabulary));
  }
}

}  // namespace

AnswerSettings default_settings(const ModelHeader& header) {
  AnswerSettings settings;
  SamplerSettings& sampling = settings.sampling;
  const GenerationDefaults& model = header.generation;
  // A file may say more than the flags allow; the nearest allowed value is used.
  const auto set_clamped = [](float& setting, std::optional<double> value, double least, double most) {
    if (value) setting = static_cast<float>(std::clamp(*value, least, most));
  };
  set_clamped(sampling.temperature, model.temperature, 0, 10);
  if (model.do_sample && !*model.do_sample) sampling.temperature = 0;
  if (model.top_k) sampling.top_k = static_cast<size_t>(std::min(*model.top_k, kMostTopK));
  set_clamped(sampling.top_p, model.top_p, 0.0001, 1);
  set_clamped(sampling.min_p, model.min_p, 0, 1);
  set_clamped(sampling.repeat_penalty, model.repeat_penalty, 0.01, 10);
  sampling.seed = random_seed();
  return settings;
}

void apply_setting(AnswerSettings& settings, std::string_view name, std::string_view value,
                   std::string_view label) {
  const auto found = std::find_if(kSettings.begin(), kSettings.end(),
                                  [&](const Setting& setting) { return setting.name == name; });
  if (found == kSettings.end()) {
    const std::string nearest = nearest_name(name, setting_names());
    throw UsageError(fmt::format("{}: there is no such setting{}", label,
                                 nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest)));
  }
  found->set(settings, label, value);
}

std::vector<std::string> setting_names() {
  std::vector<std::string> names;
  for (const Setting& setting : kSettings) names.emplace_back(setting.name);
  return names;
}

std::vector<std::pair<std::string, std::string>> list_settings(const AnswerSettings& settings) {
  std::vector<std::pair<std::string, std::string>> list;
  for (const Setting& setting : kSettings) list.emplace_back(setting.name, setting.get(settings));
  return list;
}

void check_settings(const Arguments& arguments) {
  AnswerSettings settings;
  apply_flags(settings, arguments, uint64_t{1} << 32);
}

AnswerSettings settings_from(const Arguments& arguments, const ModelHeader& header) {
  AnswerSettings settings = default_settings(header);
  apply_flags(settings, arguments, header.hyperparameters.vocabulary);
  return settings;
}

}  // namespace tessera
