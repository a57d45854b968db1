#include "engine/checkpoint/module_patterns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tessera {

namespace {

constexpr size_t kMostPatterns = 4096;
constexpr size_t kMostPatternBytes = 4096;
constexpr uint32_t kMatchLimit = 100'000;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  if (pcre2_get_error_message(code, buffer.data(), buffer.size()) < 0) return fmt::format("error {}", code);
  return std::string(reinterpret_cast<const char*>(buffer.data()));
}

struct FreePcre2 {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

}  // namespace

struct ModulePattern::Code {
  std::unique_ptr<pcre2_code, FreePcre2> compiled;
};

ModulePattern::ModulePattern(const std::string& expression, const std::string& where)
    : code_(std::make_unique<Code>()), expression_(expression), where_(where) {
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                      PCRE2_ANCHORED, &error, &at, nullptr));
  if (code_->compiled == nullptr)
    throw FileError(fmt::format("{}: expected a regular expression, found \"{}\": {}", where,
                                printable(expression), error_text(error)));
}

ModulePattern::~ModulePattern() = default;
ModulePattern::ModulePattern(ModulePattern&&) noexcept = default;
ModulePattern& ModulePattern::operator=(ModulePattern&&) noexcept = default;

bool ModulePattern::matches(std::string_view name) const {
  const std::unique_ptr<pcre2_match_data, FreePcre2> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreePcre2> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const int found = pcre2_match(code_->compiled.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(),
                                0, 0, data.get(), context.get());
  if (found < 0 && found != PCRE2_ERROR_NOMATCH)
    throw FileError(fmt::format("{}: regular expression \"{}\": gave up on \"{}\": {}", where_,
                                printable(expression_), printable(name), error_text(found)));
  return found >= 0;
}

ExcludedModules::ExcludedModules(const JsonFields& config, std::string_view field) {
  const std::string where = fmt::format("{}: {}", config.where(), config.label(field));
  for (const std::string& entry : string_list(config, field)) {
    ends_.push_back(entry);
    patterns_.emplace_back(fmt::format(R"((?:{})(?:(?<=\.)|(?=\.|$)))", entry), where);
  }
}

bool ExcludedModules::contains(std::string_view module) const {
  return std::any_of(ends_.begin(), ends_.end(),
                     [&](const std::string& end) { return module.ends_with(end); }) ||
         std::any_of(patterns_.begin(), patterns_.end(),
                     [&](const ModulePattern& pattern) { return pattern.matches(module); });
}

std::vector<std::string> string_list(const JsonFields& config, std::string_view field) {
  std::vector<std::string> list;
  if (config.find(field) == nullptr) return list;
  const nlohmann::json& array = config.array(field);
  if (array.size() > kMostPatterns)
    config.refuse(field, fmt::format("at most {} entries", kMostPatterns), std::to_string(array.size()));
  for (const nlohmann::json& entry : array) {
    if (!entry.is_string() || entry.get_ref<const std::string&>().empty() ||
        entry.get_ref<const std::string&>().size() > kMostPatternBytes)
      config.refuse(field, fmt::format("strings of 1 to {} bytes", kMostPatternBytes),
                    printable(entry.dump()));
    list.push_back(entry.get<std::string>());
  }
  return list;
}

}  // namespace tessera
