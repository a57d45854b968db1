// Reads the small JSON files beside a tokenizer, which name bos and eos and list added tokens.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "engine/tokenizer/tokenizer_definition.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 7> kRoles{"bos", "eos", "unk", "pad", "sep", "cls", "mask"};

// The text of a field that is a string or an object with a string "content"; empty when the field is absent.
std::string token_text(const JsonFields& fields, std::string_view field) {
  const json* value = fields.find(field);
  if (value == nullptr) return {};
  if (value->is_object()) return fields.object(field).text("content", kMostAddedTokenBytes);
  return fields.text(field, kMostAddedTokenBytes);
}

void read_roles(const JsonFields& fields, TokenizerConfig& config) {
  config.names_roles = true;
  for (const std::string_view role : kRoles) {
    std::string text = token_text(fields, fmt::format("{}_token", role));
    if (!text.empty()) config.roles.emplace(role, std::move(text));
  }
}

void read_additional(const JsonFields& fields, std::set<std::string>& special) {
  constexpr std::string_view name = "additional_special_tokens";
  if (fields.find(name) == nullptr) return;
  const json& list = fields.array(name);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("{}[{}]", name, i);
    if (list[i].is_string()) {
      special.insert(list[i].get<std::string>());
    } else {
      special.insert(
          JsonFields(list[i], fields.where(), fields.label(field)).text("content", kMostAddedTokenBytes));
    }
  }
}

// Reads added_tokens.json.
void read_added_texts(const std::string& path, const std::set<std::string>& special,
                      TokenizerConfig& config) {
  const json document = read_strict_json(path);
  const JsonFields fields(document, path, "");
  for (const auto& [text, id] : document.items()) {
    const std::string field = fmt::format("\"{}\"", printable(text.substr(0, 64)));
    if (text.empty() || text.size() > kMostAddedTokenBytes)
      fields.refuse(field, fmt::format("a text of 1 to {} bytes", kMostAddedTokenBytes),
                    fmt::format("{}", text.size()));
    AddedToken token;
    token.id = static_cast<uint32_t>(fields.element(id, field, 0, kMostPieces - 1));
    token.content = token.pattern = text;
    token.special = special.count(text) != 0;
    token.normalized = !token.special;
    config.added.push_back(std::move(token));
  }
  config.added_where = path;
  config.added_by_text = true;
}

void read_added_tokens(const JsonFields& fields, TokenizerConfig& config) {
  if (fields.find("added_tokens_decoder") == nullptr) return;
  config.added_where = fields.where();
  const JsonFields tokens = fields.object("added_tokens_decoder");
  for (const auto& [key, value] : fields.require("added_tokens_decoder").items()) {
    AddedToken token;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id >= kMostPieces)
      tokens.refuse(printable(key), fmt::format("an id below {} as the key", kMostPieces), printable(key));
    const JsonFields entry(value, fields.where(), tokens.label(key));
    token.content = entry.text("content", kMostAddedTokenBytes);
    token.pattern = token.content;
    token.special = entry.boolean_or("special", false);
    token.normalized = entry.boolean_or("normalized", !token.special);
    token.left_strip = entry.boolean_or("lstrip", false);
    token.right_strip = entry.boolean_or("rstrip", false);
    token.single_word = entry.boolean_or("single_word", false);
    if (token.content.empty()) entry.refuse("content", "some text", "none");
    config.added.push_back(std::move(token));
  }
}

// An id, or the first of a list of them.
std::optional<uint32_t> first_id(const JsonFields& fields, std::string_view field) {
  const json* value = fields.find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_array()) {
    if (value->empty()) return std::nullopt;
    return static_cast<uint32_t>(fields.element(value->front(), fields.label(field), 0, kMostPieces - 1));
  }
  return static_cast<uint32_t>(fields.integer(field, 0, kMostPieces - 1));
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  TokenizerConfig config;
  const std::filesystem::path base(folder);
  std::set<std::string> special;
  config.where = (base / "tokenizer_config.json").string();
  if (std::filesystem::exists(config.where)) {
    const json document = read_strict_json(config.where);
    const JsonFields fields(document, config.where, "");
    if (fields.find("tokenizer_class") != nullptr)
      config.tokenizer_class = fields.text("tokenizer_class", 256);
    const auto flag = [&](std::string_view field) -> std::optional<bool> {
      if (fields.find(field) == nullptr) return std::nullopt;
      return fields.boolean(field);
    };
    config.adds_bos = flag("add_bos_token");
    config.legacy = flag("legacy");
    config.adds_prefix_space = flag("add_prefix_space");
    if (flag("add_eos_token").value_or(false))
      config.notes.push_back(fmt::format(
          "{}: add_eos_token: no end token is put behind texts, so that they can go on", config.where));
    read_roles(fields, config);
    read_additional(fields, special);
    read_added_tokens(fields, config);
  }
  if (const std::string path = (base / "special_tokens_map.json").string(); std::filesystem::exists(path)) {
    const json document = read_strict_json(path);
    const JsonFields fields(document, path, "");
    read_roles(fields, config);  // does not replace the roles of tokenizer_config.json
    read_additional(fields, special);
  }
  // tokenizer.json lists its added tokens itself.
  if (const std::string path = (base / "added_tokens.json").string();
      config.added_where.empty() && std::filesystem::exists(path) &&
      !std::filesystem::exists(base / "tokenizer.json")) {
    for (const auto& [role, text] : config.roles) special.insert(text);
    read_added_texts(path, special, config);
  }
  std::sort(config.added.begin(), config.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  if (const std::string path = (base / "config.json").string(); std::filesystem::exists(path)) {
    const json document = read_strict_json(path);
    const JsonFields fields(document, path, "");
    if (fields.find("model_type") != nullptr) config.model_type = fields.text("model_type", 256);
    config.bos_id = first_id(fields, "bos_token_id");
    config.eos_id = first_id(fields, "eos_token_id");
    config.vocabulary = fields.optional_integer("vocab_size", 1, kMostPieces);
    leave_out_beyond(config, config.added_where, config.added, config.notes);
  }
  return config;
}

void leave_out_beyond(const TokenizerConfig& config, const std::string& where, std::vector<AddedToken>& added,
                      std::vector<std::string>& notes) {
  if (!config.vocabulary) return;
  const auto first = std::stable_partition(
      added.begin(), added.end(), [&](const AddedToken& token) { return token.id < *config.vocabulary; });
  if (first == added.end()) return;
  notes.push_back(
      fmt::format("{}: \"{}\"{} beyond the model's {} tokens: left out", where, printable(first->content),
                  added.end() - first == 1 ? std::string(" lies")
                                           : fmt::format(" and {} more lie", added.end() - first - 1),
                  *config.vocabulary));
  added.erase(first, added.end());
}

void apply_config(TokenizerDefinition& definition, const TokenizerConfig& config, bool default_adds_bos) {
  TokenizerRules& rules = definition.rules;
  const auto refuse = [](const std::string& where, const std::string& field, const std::string& fault) {
    throw FileError(fmt::format("{}: {}: {}", where, field, fault));
  };
  std::unordered_map<std::string, size_t> added;  // text -> index in rules.added
  for (size_t i = 0; i < rules.added.size(); ++i) added.emplace(rules.added[i].content, i);
  const auto add = [&](AddedToken token) {
    added.emplace(token.content, rules.added.size());
    rules.added.push_back(std::move(token));
  };
  for (const AddedToken& token : config.added) {
    const std::string field = config.added_by_text ? fmt::format("\"{}\"", printable(token.content))
                                                   : fmt::format("added_tokens_decoder.{}", token.id);
    const auto known = definition.ids.find(token.content);
    if (known != definition.ids.end()) {
      if (known->second != token.id)
        refuse(config.added_where, field,
               fmt::format("\"{}\" has id {} in the vocabulary", printable(token.content), known->second));
    } else {
      if (token.id < definition.pieces.size())
        refuse(config.added_where, field,
               fmt::format("id {} is another piece than \"{}\" in the vocabulary", token.id,
                           printable(token.content)));
      if (token.id > definition.pieces.size())
        refuse(config.added_where, field,
               fmt::format("ids have a gap: expected {}, found {}", definition.pieces.size(), token.id));
      definition.ids.emplace(token.content, token.id);
      definition.pieces.push_back(token.content);
    }
    if (const auto place = added.find(token.content); place != added.end()) {
      if (!config.added_by_text) rules.added[place->second] = token;
    } else {
      definition.pieces[token.id] = token.content;
      add(token);
    }
  }

  for (const auto& [role, text] : config.roles) {
    rules.roles[role] = text;
    const auto known = definition.ids.find(text);
    if (known == definition.ids.end()) {
      // A begin token that no text is given needs no id.
      const bool unused = role == "bos" && !config.adds_bos.value_or(default_adds_bos);
      if ((role == "bos" && !unused) || role == "eos")
        refuse(config.where, fmt::format("{}_token", role),
               fmt::format("\"{}\" is not in the vocabulary", printable(text)));
      if (unused)
        definition.notes.push_back(
            fmt::format("{}: bos_token: \"{}\" is not in the vocabulary, no text begins with it",
                        config.where, printable(text)));
      continue;
    }
    if (role == "bos") rules.bos = known->second;
    if (role == "eos") rules.eos = known->second;
    if (const auto place = added.find(text); place != added.end()) {
      rules.added[place->second].special = true;
    } else {
      AddedToken token;
      token.id = known->second;
      token.content = token.pattern = text;
      token.special = true;
      definition.pieces[token.id] = text;
      add(std::move(token));
    }
  }
  // Roles without a name get their id from config.json if it is a special token.
  const auto set_id = [&](const char* role, std::optional<uint32_t> id, std::optional<uint32_t>& target) {
    if (!id || target) return;
    const auto token = std::find_if(rules.added.begin(), rules.added.end(),
                                    [&](const AddedToken& one) { return one.id == *id && one.special; });
    if (token == rules.added.end()) return;
    target = id;
    if (!config.names_roles) rules.roles.emplace(role, token->content);
  };
  set_id("bos", config.bos_id, rules.bos);
  set_id("eos", config.eos_id, rules.eos);
  rules.adds_bos = rules.bos.has_value() && config.adds_bos.value_or(default_adds_bos);
  if (definition.pieces.size() > kMostPieces)
    throw FileError(fmt::format("{}: expected at most {} pieces, found {}", definition.where, kMostPieces,
                                definition.pieces.size()));
}

}  // namespace tessera
