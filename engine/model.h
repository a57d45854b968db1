// A loaded model file: mapped weights, tokenizer, chat template and the graph that its family describes.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/chat_format/chat_format.h"
#include "engine/models/stretched_context.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf-like-format/tess/tess_file.h"
#include "graph/graph.h"

namespace tessera {

class Model {
 public:
  static Model open(const std::string& path, bool use_mmap);   // throws FileError
  static Model from_memory(std::span<const std::byte> bytes);  // the embedded model; bytes must outlive it
  // An open file; the model holds what it needs as long as it lives, such as memory behind it. Throws
  // FileError.
  static Model from_file(std::unique_ptr<TessFile> file, std::shared_ptr<const void> needs);
  // A model of the base's tensors, except those that the predicate picks by name: they are the other model's.
  // For measuring what quantizing a part of a model costs. Nothing is copied: both models must outlive it.
  // Throws FileError.
  static Model mixed(const Model& base, const Model& other,
                     const std::function<bool(std::string_view)>& from_other);

  const ModelHeader& header() const { return file_->header(); }
  const Hyperparameters& hyperparameters() const { return hyperparameters_; }
  const TessFile& file() const { return *file_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ChatFormat& chat() const { return *chat_; }
  // Takes another chat template than the file's. Throws TemplateError when it cannot be read.
  void use_chat_template(const std::string& source);
  // Takes another scaling of positions and context than the file's. Throws std::invalid_argument.
  void stretch(const RopeRequest& request);
  const Graph& graph() const { return graph_; }
  size_t stored_bytes(const Weight& weight) const;  // of one of the graph's weights in the file
  size_t weight_bytes() const;                      // stored bytes of all weights the graph reads
  // Stored bytes of the weights that one decoded token reads: all but the embedding table.
  size_t weight_bytes_per_token() const;

 private:
  explicit Model(std::unique_ptr<TessFile> file);
  std::shared_ptr<const void> needs_;  // by the file
  std::unique_ptr<TessFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<const ChatFormat> chat_;
  Hyperparameters hyperparameters_;  // the file's, but for its positions
  Graph graph_;
};

}  // namespace tessera
