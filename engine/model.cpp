#include "engine/model.h"

#include <set>
#include <stdexcept>
#include <utility>

#include "engine/models/families.h"
#include "engine/models/model_graph.h"
#include "graph/op_weights.h"

namespace tessera {

Model::Model(std::unique_ptr<TessFile> file) : file_(std::move(file)) {
  tokenizer_ = std::make_unique<Tokenizer>(Tokenizer::from_stored(header().tokenizer, file_->tensors()));
  chat_ = std::make_unique<const ChatFormat>(header().chat.chat_template, header().chat, *tokenizer_);
  hyperparameters_ = header().hyperparameters;
  graph_ = build_graph(*file_);
}

void Model::use_chat_template(const std::string& source) {
  auto chat = std::make_unique<const ChatFormat>(source, header().chat, *tokenizer_);
  if (!chat->fault().empty()) throw TemplateError(chat->fault());
  chat_ = std::move(chat);
}

void Model::stretch(const RopeRequest& request) {
  const Hyperparameters& h = header().hyperparameters;
  if (h.alibi != 0 || find_family(h.family, file_->path()).learned_positions)
    throw std::invalid_argument("options of RoPE: the model's positions are not rotary");
  hyperparameters_ = stretched(header().hyperparameters, request);
  graph_ = build_graph(*file_, hyperparameters_);
}

Model Model::open(const std::string& path, bool use_mmap) { return Model(TessFile::open(path, use_mmap)); }

Model Model::from_memory(std::span<const std::byte> bytes) {
  return Model(TessFile::from_memory(bytes, "embedded model"));
}

Model Model::from_file(std::unique_ptr<TessFile> file, std::shared_ptr<const void> needs) {
  Model model(std::move(file));
  model.needs_ = std::move(needs);
  return model;
}

Model Model::mixed(const Model& base, const Model& other,
                   const std::function<bool(std::string_view)>& from_other) {
  return Model(TessFile::mixed(base.file(), other.file(), from_other));
}

size_t Model::stored_bytes(const Weight& weight) const { return file_->require(weight.name).bytes.size(); }

size_t Model::weight_bytes() const {
  size_t bytes = 0;
  for (const Weight& weight : graph_.weights) bytes += stored_bytes(weight);
  return bytes;
}

size_t Model::weight_bytes_per_token() const {
  std::set<WeightId> read;
  for (const Op& op : graph_.ops) {
    for_each_weight(op, [&](WeightId id, WeightRole role) {
      if (role != WeightRole::table && role != WeightRole::positions) read.insert(id);
    });
  }
  size_t bytes = 0;
  for (const WeightId id : read) bytes += stored_bytes(graph_.weights[id]);
  return bytes;
}

}  // namespace tessera
