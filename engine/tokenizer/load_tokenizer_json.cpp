// Reads tokenizer.json files with a BPE model. A setting that is not supported is an error that names it.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{size_t{256} << 20, 32};
constexpr size_t kMostRuleBytes = 65536;
constexpr size_t kMostSteps = 64;

std::string type_of(const JsonFields& fields) { return fields.text("type", 256); }

[[noreturn]] void refuse_type(const JsonFields& fields) {
  fields.refuse("type", "a component this version knows", fmt::format("\"{}\"", printable(type_of(fields))));
}

// Appends the components of a Sequence in order (they may be sequences too), or the component itself.
void append_components(JsonFields component, std::string_view list, std::vector<JsonFields>& found) {
  if (type_of(component) != "Sequence") {
    if (found.size() == kMostSteps)
      component.refuse("type", fmt::format("at most {} steps", kMostSteps), "more");
    found.push_back(std::move(component));
    return;
  }
  const json& steps = component.array(list);
  for (size_t i = 0; i < steps.size(); ++i)
    append_components(
        JsonFields(steps[i], component.where(), fmt::format("{}[{}]", component.label(list), i)), list,
        found);
}

std::vector<JsonFields> components(const JsonFields& top, std::string_view field, std::string_view list) {
  std::vector<JsonFields> found;
  if (top.find(field) != nullptr) append_components(top.object(field), list, found);
  return found;
}

// The pattern of a Split or Replace component.
struct Pattern {
  std::string text;
  bool regex = false;
};

Pattern read_pattern(const JsonFields& fields, bool takes_regex) {
  const JsonFields pattern = fields.object("pattern");
  Pattern read;
  if (pattern.find("String") != nullptr) {
    read.text = pattern.text("String", kMostRuleBytes);
    if (read.text.empty()) pattern.refuse("String", "some text", "none");
  } else if (takes_regex) {
    read.text = pattern.text("Regex", kMostRuleBytes);
    read.regex = true;
  } else {
    fields.refuse("pattern", "a String pattern", "another");
  }
  return read;
}

void read_normalizer(const JsonFields& top, TokenizerRules& rules) {
  for (const JsonFields& step : components(top, "normalizer", "normalizers")) {
    const std::string type = type_of(step);
    if (type == "NFC") {
      rules.normalizer.push_back({NormalizerStep::Kind::nfc, "", ""});
    } else if (type == "Prepend") {
      rules.normalizer.push_back({NormalizerStep::Kind::prepend, step.text("prepend", kMostRuleBytes), ""});
    } else if (type == "Replace") {
      rules.normalizer.push_back({NormalizerStep::Kind::replace, read_pattern(step, false).text,
                                  step.text("content", kMostRuleBytes)});
    } else {
      refuse_type(step);
    }
  }
}

SplitBehavior read_behavior(const JsonFields& step) {
  static constexpr std::array<std::string_view, 5> names{"Isolated", "Removed", "Contiguous",
                                                         "MergedWithPrevious", "MergedWithNext"};
  const std::string name = step.text("behavior", 64);
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) step.refuse_value("behavior", "a known behavior");
  return static_cast<SplitBehavior>(found - names.begin());
}

// Reads Metaspace: spaces become a mark, which is also put before the first word or before all words.
void read_metaspace(const JsonFields& step, TokenizerRules& rules) {
  const std::string mark = step.text("replacement", 4);
  if (mark.empty()) step.refuse("replacement", "one character", "none");
  std::string scheme = step.boolean_or("add_prefix_space", true) ? "always" : "never";
  if (step.find("prepend_scheme") != nullptr) scheme = step.text("prepend_scheme", 16);
  rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::replace, " ", mark, SplitBehavior::isolated, false});
  if (scheme == "always" || scheme == "first") {
    const auto kind =
        scheme == "always" ? PreTokenizerStep::Kind::prefix : PreTokenizerStep::Kind::prefix_to_first;
    rules.pre_tokenizer.push_back({kind, mark, "", SplitBehavior::isolated, false});
  } else if (scheme != "never") {
    step.refuse_value("prepend_scheme", "always, first or never");
  }
  if (step.boolean_or("split", true))
    rules.pre_tokenizer.push_back(
        {PreTokenizerStep::Kind::split_text, mark, "", SplitBehavior::merged_with_next, false});
}

void read_pre_tokenizer(const JsonFields& top, TokenizerRules& rules) {
  for (const JsonFields& step : components(top, "pre_tokenizer", "pretokenizers")) {
    const std::string type = type_of(step);
    if (rules.byte_level)
      step.refuse("type", "nothing after ByteLevel", fmt::format("\"{}\"", printable(type)));
    if (type == "Split") {
      const Pattern pattern = read_pattern(step, true);
      const auto kind =
          pattern.regex ? PreTokenizerStep::Kind::split_regex : PreTokenizerStep::Kind::split_text;
      rules.pre_tokenizer.push_back(
          {kind, pattern.text, "", read_behavior(step), step.boolean_or("invert", false)});
    } else if (type == "Digits") {
      const auto behavior =
          step.boolean_or("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous;
      rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::split_digits, "", "", behavior, false});
    } else if (type == "ByteLevel") {
      rules.byte_level = true;
      if (step.boolean_or("add_prefix_space", true))
        rules.pre_tokenizer.push_back(
            {PreTokenizerStep::Kind::prefix, " ", "", SplitBehavior::isolated, false});
      if (step.boolean_or("use_regex", true))
        rules.pre_tokenizer.push_back({PreTokenizerStep::Kind::split_regex, std::string(kGpt2Pattern), "",
                                       SplitBehavior::isolated, false});
    } else if (type == "Metaspace") {
      read_metaspace(step, rules);
    } else {
      refuse_type(step);
    }
  }
}

// How pieces are turned back into text.
struct DecoderRules {
  std::vector<std::pair<std::string, std::string>> replacements;
  bool byte_fallback = false;
};

DecoderRules read_decoder(const JsonFields& top, TokenizerRules& rules) {
  DecoderRules decoder;
  const std::vector<JsonFields> steps = components(top, "decoder", "decoders");
  if (rules.byte_level) {
    if (steps.size() != 1)
      top.refuse("decoder", "ByteLevel, as the pre-tokenizer is", fmt::format("{} steps", steps.size()));
    if (type_of(steps[0]) != "ByteLevel") refuse_type(steps[0]);
    return decoder;
  }
  if (steps.empty()) top.refuse("decoder", "ByteLevel or a Sequence", "none");
  bool fused = false;
  for (const JsonFields& step : steps) {
    const std::string type = type_of(step);
    if (type == "Replace" && !fused && !decoder.byte_fallback) {
      decoder.replacements.emplace_back(read_pattern(step, false).text, step.text("content", kMostRuleBytes));
    } else if (type == "ByteFallback" && !fused) {
      decoder.byte_fallback = true;
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "Strip" && fused) {
      if (step.text("content", 16) != " ") step.refuse_value("content", "one space");
      rules.strip_leading_space = step.integer("start", 0, 1) == 1;
      step.integer("stop", 0, 0);
    } else {
      refuse_type(step);
    }
  }
  return decoder;
}

// The text of a token that a post-processor of BERT's kind names: ["</s>", 2].
std::string pair_text(const JsonFields& step, std::string_view field) {
  const json& pair = step.array(field);
  if (pair.size() != 2 || !pair[0].is_string()) step.refuse_value(field, "a text and its id");
  return pair[0].get<std::string>();
}

// The token that the post-processor puts before a text, if it does. Tokens that it puts behind a text end it,
// as training needs it and generation does not: they are left out, with a note.
std::optional<std::string> read_post_processor(const JsonFields& top, std::vector<std::string>& notes) {
  std::optional<std::string> first;
  const auto leave_out = [&](const JsonFields& step, const std::string& name) {
    notes.push_back(fmt::format("{}: {}: \"{}\" is not put behind texts, so that they can go on",
                                step.where(), step.label("type"), printable(name)));
  };
  for (const JsonFields& step : components(top, "post_processor", "processors")) {
    const std::string type = type_of(step);
    if (type == "ByteLevel") continue;  // only changes offsets, which are not used here
    if (type == "RobertaProcessing" || type == "BertProcessing") {
      if (first) step.refuse("type", "one step that puts a token before the text", "two");
      first = pair_text(step, "cls");
      leave_out(step, pair_text(step, "sep"));
      continue;
    }
    if (type != "TemplateProcessing") refuse_type(step);
    const json& single = step.array("single");
    bool text_seen = false;
    for (size_t i = 0; i < single.size(); ++i) {
      const JsonFields part(single[i], step.where(), fmt::format("{}[{}]", step.label("single"), i));
      if (part.find("Sequence") != nullptr) {
        text_seen = true;
      } else {
        const std::string name = part.object("SpecialToken").text("id", kMostAddedTokenBytes);
        if (text_seen) {
          leave_out(step, name);
          continue;
        }
        if (first)
          part.refuse("SpecialToken", "one token before the text",
                      fmt::format("\"{}\" and \"{}\"", printable(*first), printable(name)));
        first = name;
      }
    }
  }
  return first;
}

// "<0x41>" -> 0x41.
std::optional<unsigned char> byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
  uint32_t value = 0;
  for (const char c : piece.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'A' && c <= 'F')) return std::nullopt;
    value = value * 16 + static_cast<uint32_t>(digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<unsigned char>(value);
}

std::vector<AddedToken> read_added_tokens(const JsonFields& top, std::vector<std::string>& notes) {
  std::vector<AddedToken> added;
  std::map<uint32_t, std::string> texts;
  std::set<std::string> contents;
  if (top.find("added_tokens") == nullptr) return added;
  const json& list = top.array("added_tokens");
  for (size_t i = 0; i < list.size(); ++i) {
    const JsonFields entry(list[i], top.where(), fmt::format("added_tokens[{}]", i));
    AddedToken token;
    token.id = static_cast<uint32_t>(entry.integer("id", 0, kMostPieces - 1));
    token.content = token.pattern = entry.text("content", kMostAddedTokenBytes);
    if (token.content.empty()) entry.refuse("content", "some text", "none");
    token.special = entry.boolean_or("special", false);
    token.normalized = entry.boolean_or("normalized", !token.special);
    token.left_strip = entry.boolean_or("lstrip", false);
    token.right_strip = entry.boolean_or("rstrip", false);
    token.single_word = entry.boolean_or("single_word", false);
    const auto known = texts.find(token.id);
    if (known != texts.end() && known->second == token.content) {
      notes.push_back(fmt::format("{}: {}: \"{}\" is listed twice", top.where(), entry.label("content"),
                                  printable(token.content)));
      continue;
    }
    if (!texts.emplace(token.id, token.content).second || !contents.insert(token.content).second)
      entry.refuse("content", "ids and texts that appear once",
                   fmt::format("\"{}\" with id {}", printable(token.content), token.id));
    added.push_back(std::move(token));
  }
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return added;
}

// The texts of the vocabulary and of the added tokens by id. Every id has exactly one text.
struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<bool> known_to_model;  // the others are added tokens, which merging never produces
};

uint32_t piece_id(const JsonFields& model, const std::string& text, const json& id) {
  const uint64_t value = id.is_number_unsigned() ? id.get<uint64_t>() : kMostPieces;
  if (value >= kMostPieces)
    throw FileError(fmt::format("{}: {}: \"{}\": expected an id below {}, found {}", model.where(),
                                model.label("vocab"), printable(text), kMostPieces,
                                printable(id.dump(-1, ' ', true))));
  return static_cast<uint32_t>(value);
}

// Pieces that the model has no embedding for are left out, with a note; a merge that makes one is refused
// later.
json::object_t pieces_of(const JsonFields& model, const TokenizerConfig& config,
                         std::vector<std::string>& notes) {
  const json& vocabulary = model.require("vocab");
  if (!vocabulary.is_object()) model.refuse_value("vocab", "an object of pieces and ids");
  json::object_t entries = vocabulary.get_ref<const json::object_t&>();
  if (!config.vocabulary) return entries;
  std::vector<AddedToken> beyond;
  for (auto entry = entries.begin(); entry != entries.end();) {
    const uint32_t id = piece_id(model, entry->first, entry->second);
    if (id < *config.vocabulary) {
      ++entry;
      continue;
    }
    beyond.emplace_back().id = id;
    beyond.back().content = entry->first;
    entry = entries.erase(entry);
  }
  leave_out_beyond(config, model.where(), beyond, notes);
  return entries;
}

Vocabulary read_vocabulary(const JsonFields& model, const TokenizerConfig& config,
                           TokenizerDefinition& definition) {
  const json::object_t entries = pieces_of(model, config, definition.notes);
  Vocabulary read;
  std::vector<std::string>& texts = read.texts;
  texts.resize(entries.size());
  std::vector<bool> taken(texts.size(), false);
  const auto place = [&](const std::string& text, uint32_t id, const std::string& label) {
    if (id >= texts.size())
      throw FileError(fmt::format("{}: {}: ids have a gap: expected less than {} for \"{}\", found {}",
                                  definition.where, label, texts.size(), printable(text), id));
    if (taken[id])
      throw FileError(fmt::format("{}: {}: id {} belongs to \"{}\" and to \"{}\"", definition.where, label,
                                  id, printable(texts[id]), printable(text)));
    taken[id] = true;
    texts[id] = text;
    definition.ids.emplace(text, id);
  };
  // Ids of added tokens may lie between those of the vocabulary, so all are counted before ids are checked.
  size_t only_added = 0;
  for (const AddedToken& token : definition.rules.added)
    only_added += entries.find(token.content) == entries.end();
  texts.resize(texts.size() + only_added);
  taken.resize(texts.size(), false);
  const std::string label = model.label("vocab");
  for (const auto& [text, id] : entries) place(text, piece_id(model, text, id), label);
  read.known_to_model = taken;
  for (const AddedToken& token : definition.rules.added) {
    const auto known = definition.ids.find(token.content);
    if (known == definition.ids.end()) {
      place(token.content, token.id, "added_tokens");
    } else if (known->second != token.id) {
      throw FileError(fmt::format("{}: added_tokens: \"{}\": expected id {} as in the vocabulary, found {}",
                                  definition.where, printable(token.content), known->second, token.id));
    }
  }
  return read;  // there are no gaps: as many ids as texts, none twice, none too large
}

// The two pieces of a merge, which is written "a b" or ["a", "b"].
std::pair<std::string, std::string> merge_parts(const JsonFields& model, const json& merge, size_t index) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && space == text.rfind(' '))
      return {text.substr(0, space), text.substr(space + 1)};
  }
  model.refuse(fmt::format("merges[{}]", index), "two pieces", printable(merge.dump(-1, ' ', true)));
}

void read_merges(const JsonFields& model, TokenizerDefinition& definition) {
  const json& merges = model.array("merges");
  definition.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto [left, right] = merge_parts(model, merges[i], i);
    const auto id = [&](const std::string& piece) {
      const auto found = definition.ids.find(piece);
      if (found == definition.ids.end())
        model.refuse(fmt::format("merges[{}]", i), "pieces of the vocabulary",
                     fmt::format("\"{}\"", printable(piece)));
      return found->second;
    };
    definition.merges.push_back({id(left), id(right), static_cast<uint32_t>(i), id(left + right)});
  }
}

// Throws FileError for settings of the model that are not supported.
void check_model(const JsonFields& model) {
  if (model.find("type") != nullptr && model.text("type", 64) != "BPE") model.refuse_value("type", "BPE");
  if (model.find("dropout") != nullptr && model.number("dropout", 0.0, 1.0) != 0.0)
    model.refuse_value("dropout", "none");
  for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.find(field) != nullptr && !model.text(field, 256).empty()) model.refuse_value(field, "none");
}

std::string shown_piece(std::string piece, const DecoderRules& decoder) {
  for (const auto& [from, to] : decoder.replacements) piece = replace_all(piece, from, to);
  return piece;
}

// Sets the symbols of single bytes or characters, and the pieces as they appear in text.
void lay_out_pieces(const Vocabulary& vocabulary, const DecoderRules& decoder,
                    TokenizerDefinition& definition) {
  const std::vector<std::string>& texts = vocabulary.texts;
  const bool byte_level = definition.rules.byte_level;
  const auto& added = definition.rules.added;
  std::vector<bool> is_added(texts.size(), false);
  for (const AddedToken& token : added) is_added[token.id] = true;
  for (size_t id = 0; id < texts.size(); ++id) {
    const std::string& text = texts[id];
    const auto symbol = static_cast<uint32_t>(id);
    if (byte_level) {
      const auto bytes = bytes_of_piece(text);
      definition.pieces.push_back(bytes && !is_added[id] ? *bytes : text);
      if (bytes && bytes->size() == 1 && vocabulary.known_to_model[id])
        definition.characters.emplace_back(static_cast<unsigned char>((*bytes)[0]), symbol);
      if (definition.rules.ignore_merges && bytes && !is_added[id]) definition.whole_words.push_back(symbol);
      continue;
    }
    if (!text.empty() && vocabulary.known_to_model[id]) {
      const Utf8Character character = read_utf8(text, 0);
      if (character.length == text.size()) definition.characters.emplace_back(character.codepoint, symbol);
    }
    std::string piece = shown_piece(text, decoder);
    if (const auto byte = byte_of_piece(piece); byte && decoder.byte_fallback && !is_added[id])
      piece = std::string(1, static_cast<char>(*byte));
    definition.pieces.push_back(std::move(piece));
  }
}

}  // namespace

TokenizerDefinition load_tokenizer_json(std::string_view text, const std::string& where,
                                        const TokenizerConfig& config) {
  const json document = parse_strict_json(text, where, kLimits);
  const JsonFields top(document, where, "");
  TokenizerDefinition definition;
  definition.where = where;
  TokenizerRules& rules = definition.rules;
  const JsonFields model = top.object("model");
  check_model(model);
  read_normalizer(top, rules);
  read_pre_tokenizer(top, rules);
  const DecoderRules decoder = read_decoder(top, rules);
  rules.fuse_unknown = model.boolean_or("fuse_unk", false);
  rules.ignore_merges = model.boolean_or("ignore_merges", false);
  if (rules.ignore_merges && !rules.byte_level)
    model.refuse_value("ignore_merges", "false without ByteLevel");
  rules.added = read_added_tokens(top, definition.notes);
  leave_out_beyond(config, where, rules.added, definition.notes);

  const Vocabulary vocabulary = read_vocabulary(model, config, definition);
  if (vocabulary.texts.empty()) model.refuse("vocab", "at least one piece", "none");
  read_merges(model, definition);
  if (model.find("unk_token") != nullptr) {
    const auto unknown = definition.ids.find(model.text("unk_token", kMostAddedTokenBytes));
    if (unknown == definition.ids.end()) model.refuse_value("unk_token", "a piece of the vocabulary");
    rules.unknown = unknown->second;
  }
  if (model.boolean_or("byte_fallback", false)) {
    definition.byte_tokens.assign(256, kNoSymbol);
    for (const auto& [piece, id] : definition.ids)
      if (const auto byte = byte_of_piece(piece)) definition.byte_tokens[*byte] = id;
  }
  lay_out_pieces(vocabulary, decoder, definition);

  const std::optional<std::string> first = read_post_processor(top, definition.notes);
  apply_config(definition, config, first.has_value());
  if (first) {
    const auto found = definition.ids.find(*first);
    if (found == definition.ids.end())
      top.refuse("post_processor", "a token of the vocabulary", fmt::format("\"{}\"", printable(*first)));
    if (!rules.bos) {
      rules.bos = found->second;
      if (!config.names_roles) rules.roles.emplace("bos", *first);
      rules.adds_bos = config.adds_bos.value_or(true);
    } else if (rules.adds_bos && *rules.bos != found->second) {
      top.refuse("post_processor", fmt::format("the bos token {} before the text", *rules.bos),
                 fmt::format("\"{}\"", printable(*first)));
    }
  }
  for (AddedToken& token : rules.added) {
    if (!token.normalized) continue;
    // The token is found in normalized text, so decoding gives the normalized form too.
    token.pattern = normalize(rules.normalizer, as_unquoted(token.content), false).text;
    definition.pieces[token.id] = shown_piece(token.pattern, decoder);
  }
  return definition;
}

}  // namespace tessera
