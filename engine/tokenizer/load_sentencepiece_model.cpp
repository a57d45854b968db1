// Reads SentencePiece model files (protocol buffers) that hold a BPE model.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/tokenizer/bpe_merges.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/utf8.h"
#include "gguf-like-format/file_error.h"

namespace tessera {

namespace {

constexpr const char* kSpaceMark = "\u2581";

// One field of a message: a number (varint or fixed width) or bytes.
struct WireField {
  uint32_t number = 0;
  uint32_t type = 0;
  uint64_t value = 0;
  std::string_view bytes;

  bool has_number() const { return type == 0; }
  bool has_bytes() const { return type == 2; }
};

// Reads the fields of one message in order; every length is checked against the bytes that remain.
class WireReader {
 public:
  // where: the file; base: the position of the message in it. Both are only for errors.
  WireReader(std::string_view message, const std::string& where, size_t base)
      : message_(message), where_(where), base_(base) {}

  bool next(WireField& field) {
    if (at_ == message_.size()) return false;
    const size_t begin = at_;
    const uint64_t tag = varint(begin);
    field = {};
    if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) refuse(begin, "field number out of range");
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<uint32_t>(tag & 7);
    switch (field.type) {
      case 0:
        field.value = varint(begin);
        break;
      case 1:
        field.value = fixed(begin, 8);
        break;
      case 5:
        field.value = fixed(begin, 4);
        break;
      case 2: {
        const uint64_t length = varint(begin);
        if (length > message_.size() - at_)
          refuse(begin, fmt::format("field {}: expected {} bytes, found {}", field.number, length,
                                    message_.size() - at_));
        field.bytes = message_.substr(at_, static_cast<size_t>(length));
        at_ += static_cast<size_t>(length);
        break;
      }
      default:
        refuse(begin, fmt::format("field {}: unknown wire type {}", field.number, field.type));
    }
    return true;
  }

  // The position of a field's bytes in the file.
  size_t offset(const WireField& field) const {
    return base_ + static_cast<size_t>(field.bytes.data() - message_.data());
  }

 private:
  [[noreturn]] void refuse(size_t at, const std::string& fault) const {
    throw FileError(fmt::format("{}: byte {}: {}", where_, base_ + at, fault));
  }

  uint64_t varint(size_t begin) {
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
      if (at_ == message_.size()) refuse(begin, "the file ends inside a number");
      const auto byte = static_cast<unsigned char>(message_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    refuse(begin, "a number is longer than 10 bytes");
  }

  uint64_t fixed(size_t begin, size_t size) {
    if (message_.size() - at_ < size) refuse(begin, "the file ends inside a number");
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i)
      value |= static_cast<uint64_t>(static_cast<unsigned char>(message_[at_ + i])) << (8 * i);
    at_ += size;
    return value;
  }

  std::string_view message_;
  const std::string& where_;
  size_t base_;
  size_t at_ = 0;
};

enum class PieceType : uint64_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

// The parts of the model file that affect tokenization, with the format's default values.
struct Model {
  std::vector<Piece> pieces;
  uint64_t model_type = 1;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  int64_t bos = 1, eos = 2, pad = -1;
  size_t charsmap_bytes = 0;
  size_t denormalizer_bytes = 0;
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

Piece read_piece(WireReader reader, const std::string& where, size_t index) {
  Piece piece;
  for (WireField field; reader.next(field);) {
    if (field.number == 1 && field.has_bytes()) piece.text = field.bytes;
    if (field.number == 2 && field.type == 5)
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == 3 && field.has_number()) {
      if (field.value < 1 || field.value > 6)
        throw FileError(
            fmt::format("{}: pieces[{}].type: expected 1 to 6, found {}", where, index, field.value));
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  return piece;
}

void read_trainer(WireReader reader, Model& model) {
  for (WireField field; reader.next(field);) {
    if (!field.has_number()) continue;
    if (field.number == 3) model.model_type = field.value;
    if (field.number == 24) model.whitespace_as_suffix = field.value != 0;
    if (field.number == 35) model.byte_fallback = field.value != 0;
    if (field.number == 41) model.bos = static_cast<int32_t>(static_cast<uint32_t>(field.value));
    if (field.number == 42) model.eos = static_cast<int32_t>(static_cast<uint32_t>(field.value));
    if (field.number == 43) model.pad = static_cast<int32_t>(static_cast<uint32_t>(field.value));
  }
}

void read_normalizer(WireReader reader, Model& model) {
  for (WireField field; reader.next(field);) {
    if (field.number == 2 && field.has_bytes()) model.charsmap_bytes = field.bytes.size();
    if (!field.has_number()) continue;
    if (field.number == 3) model.dummy_prefix = field.value != 0;
    if (field.number == 4) model.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model.escape_whitespaces = field.value != 0;
  }
}

Model read_model(std::string_view bytes, const std::string& where) {
  Model model;
  WireReader reader(bytes, where, 0);
  for (WireField field; reader.next(field);) {
    if (!field.has_bytes()) continue;
    const WireReader inner(field.bytes, where, reader.offset(field));
    if (field.number == 1) {
      if (model.pieces.size() >= kMostPieces)
        throw FileError(fmt::format("{}: pieces: expected at most {}", where, kMostPieces));
      model.pieces.push_back(read_piece(inner, where, model.pieces.size()));
    }
    if (field.number == 2) read_trainer(inner, model);
    if (field.number == 3) read_normalizer(inner, model);
    if (field.number == 5) {
      Model denormalizer;
      read_normalizer(inner, denormalizer);
      model.denormalizer_bytes = denormalizer.charsmap_bytes;
    }
  }
  return model;
}

void check_model(const Model& model, const std::string& where) {
  const auto refuse = [&](const std::string& line) { throw FileError(fmt::format("{}: {}", where, line)); };
  if (model.pieces.empty()) refuse("pieces: expected at least one, found none");
  if (model.model_type != 2)
    refuse(fmt::format("trainer_spec.model_type: expected 2 (BPE), found {}", model.model_type));
  if (model.charsmap_bytes != 0)
    refuse(fmt::format("normalizer_spec.precompiled_charsmap: expected none, found {} bytes",
                       model.charsmap_bytes));
  if (model.denormalizer_bytes != 0)
    refuse(fmt::format("denormalizer_spec.precompiled_charsmap: expected none, found {} bytes",
                       model.denormalizer_bytes));
  if (model.whitespace_as_suffix)
    refuse("trainer_spec.treat_whitespace_as_suffix: expected false, found true");
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.text.empty()) refuse(fmt::format("pieces[{}].piece: expected some text, found none", id));
    if (!is_utf8(piece.text))
      refuse(fmt::format("pieces[{}].piece: not UTF-8: \"{}\"", id, printable(piece.text)));
    if (!std::isfinite(piece.score)) refuse(fmt::format("pieces[{}].score: expected a finite number", id));
    if (piece.type == PieceType::unused)
      refuse(fmt::format("pieces[{}].type: unused pieces are not supported", id));
    const bool marker = piece.type != PieceType::normal && piece.type != PieceType::byte;
    if (marker && piece.text.size() > kMostAddedTokenBytes)
      refuse(fmt::format("pieces[{}].piece: expected at most {} bytes, found {}", id, kMostAddedTokenBytes,
                         piece.text.size()));
  }
}

// The byte of "<0x41>".
std::optional<size_t> byte_value(std::string_view text) {
  for (size_t byte = 0; byte < 256; ++byte)
    if (text == fmt::format("<0x{:02X}>", byte)) return byte;
  return std::nullopt;
}

// Sets the rules for spaces. Whether a space is put before every segment or only before the first depends on
// the flag "legacy" of tokenizer_config.json; when it is absent, before every one, because the flag's default
// is true.
void set_normalizer(const Model& model, const TokenizerConfig& config, TokenizerRules& rules) {
  const std::string space = model.escape_whitespaces ? kSpaceMark : " ";
  if (model.remove_extra_whitespaces)
    rules.normalizer.push_back({NormalizerStep::Kind::collapse_spaces, "", ""});
  if (model.dummy_prefix && config.adds_prefix_space.value_or(true)) {
    const auto kind =
        config.legacy.value_or(true) ? NormalizerStep::Kind::prepend : NormalizerStep::Kind::prepend_to_first;
    rules.normalizer.push_back({kind, space, ""});
    rules.strip_leading_space = true;
  }
  if (model.escape_whitespaces) rules.normalizer.push_back({NormalizerStep::Kind::replace, " ", kSpaceMark});
}

std::vector<std::optional<float>> scores_of(const std::vector<Piece>& pieces) {
  std::vector<std::optional<float>> scores;
  for (const Piece& piece : pieces)
    scores.push_back(piece.type == PieceType::normal ? std::optional(piece.score) : std::nullopt);
  return scores;
}

}  // namespace

std::vector<uint32_t> rank_by_score(const std::vector<std::optional<float>>& scores) {
  std::vector<float> in_order;
  for (const std::optional<float>& score : scores)
    if (score) in_order.push_back(*score);
  std::sort(in_order.begin(), in_order.end(), std::greater<>());
  in_order.erase(std::unique(in_order.begin(), in_order.end()), in_order.end());
  std::vector<uint32_t> ranks;
  for (const std::optional<float>& score : scores) {
    if (!score) {
      ranks.push_back(kNoSymbol);
      continue;
    }
    const auto at = std::lower_bound(in_order.begin(), in_order.end(), *score, std::greater<>());
    ranks.push_back(static_cast<uint32_t>(at - in_order.begin()));
  }
  return ranks;
}

TokenizerDefinition load_sentencepiece_model(std::string_view bytes, const std::string& where,
                                             const TokenizerConfig& config) {
  const Model model = read_model(bytes, where);
  check_model(model, where);
  TokenizerDefinition definition;
  definition.where = where;
  TokenizerRules& rules = definition.rules;
  set_normalizer(model, config, rules);
  rules.fuse_unknown = true;

  std::vector<std::string> texts;
  std::vector<uint32_t> byte_tokens(256, kNoSymbol);
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    const auto refuse = [&](const std::string& fault) {
      throw FileError(fmt::format("{}: pieces[{}]: {}", where, id, fault));
    };
    if (!definition.ids.emplace(piece.text, id).second)
      refuse(fmt::format("\"{}\" is also piece {}", printable(piece.text), definition.ids.at(piece.text)));
    texts.push_back(piece.text);
    std::string shown = model.escape_whitespaces ? replace_all(piece.text, kSpaceMark, " ") : piece.text;
    AddedToken token;
    token.id = id;
    token.content = token.pattern = piece.text;
    switch (piece.type) {
      case PieceType::unknown:
        if (rules.unknown) refuse(fmt::format("a second unknown piece beside {}", *rules.unknown));
        rules.unknown = id;
        rules.roles.emplace("unk", piece.text);
        [[fallthrough]];
      case PieceType::control:
        token.special = true;
        rules.added.push_back(token);
        shown = piece.text;
        break;
      case PieceType::user_defined:  // found in normalized text; the file spells the piece normalized
        token.normalized = true;
        token.content = shown;
        rules.added.push_back(token);
        break;
      case PieceType::byte: {
        const auto byte = byte_value(piece.text);
        if (!byte) refuse(fmt::format("expected a byte such as <0x41>, found \"{}\"", printable(piece.text)));
        byte_tokens[*byte] = id;
        shown = std::string(1, static_cast<char>(static_cast<unsigned char>(*byte)));
        break;
      }
      default:
        break;
    }
    definition.pieces.push_back(std::move(shown));
  }
  if (!rules.unknown)
    throw FileError(fmt::format("{}: pieces: expected an unknown piece, found none", where));
  if (model.byte_fallback) {
    const auto missing = std::find(byte_tokens.begin(), byte_tokens.end(), kNoSymbol);
    if (missing != byte_tokens.end())
      throw FileError(fmt::format("{}: trainer_spec.byte_fallback: no piece for byte {}", where,
                                  missing - byte_tokens.begin()));
    definition.byte_tokens = std::move(byte_tokens);
  }
  TokenizerConfig named = config;
  for (AddedToken& token : named.added) token.normalized = false;  // found in the text as it is
  const auto name = [&](const char* role, int64_t id) {
    if (id < 0 || id >= static_cast<int64_t>(model.pieces.size())) return;
    const Piece& piece = model.pieces[static_cast<size_t>(id)];
    if (piece.type == PieceType::control) named.roles.emplace(role, piece.text);
  };
  name("bos", model.bos);
  name("eos", model.eos);
  name("pad", model.pad);
  apply_config(definition, named, true);
  merges_from_pieces(definition, texts, rank_by_score(scores_of(model.pieces)));
  return definition;
}

}  // namespace tessera
