// Reads a .tess file: maps it, checks every field before use, and gives views of its tensors. Layout:
// docs/file-format.md.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/model_header.h"
#include "gguf-like-format/stored_tensor.h"

namespace tessera {

inline constexpr size_t kTessAlignment = 4096;
inline constexpr uint32_t kTessVersion = 1;

class TessFile {
 public:
  ~TessFile();
  // Maps the file (or reads it into memory with use_mmap false) and validates everything but the weights'
  // values. Throws FileError naming the field. No page of a tensor is touched but those of orders of columns.
  static std::unique_ptr<TessFile> open(const std::string& path, bool use_mmap);
  // The same for a file that stands for another, such as a copy of it: path() and errors give that name.
  static std::unique_ptr<TessFile> open(const std::string& path, bool use_mmap, const std::string& name);
  // The same over bytes that outlive the object and start at a multiple of 64: the embedded model.
  static std::unique_ptr<TessFile> from_memory(std::span<const std::byte> bytes, const std::string& name);
  // The base with some of its tensors replaced by another file's of the same name: those whose names the
  // predicate picks. Nothing is copied, so both files must outlive the object. Throws FileError when the
  // other file lacks a tensor or has it in another shape. An order of columns comes with the matrices that
  // are stored in it; throws where some of these come from one file, some from the other, and the orders
  // differ.
  static std::unique_ptr<TessFile> mixed(const TessFile& base, const TessFile& other,
                                         const std::function<bool(std::string_view)>& from_other);

  const std::string& path() const;
  const ModelHeader& header() const;
  std::span<const StoredTensor> tensors() const;             // in file order
  const StoredTensor* find(std::string_view name) const;     // nullptr when absent
  const StoredTensor& require(std::string_view name) const;  // throws FileError
  std::span<const std::byte> mapped_bytes() const;           // the whole file; of a mixed one the base's

  // Whether the bytes take memory of their own already, so that the system can get none of it back: they were
  // read (--no-mmap) or made in memory.
  bool resident() const;

  // Checks every tensor's hash and that all scales are finite and positive (zero is allowed where a padded or
  // all-zero row makes it so); returns one line per fault, empty when all is well.
  std::vector<std::string> verify() const;

 private:
  struct State;
  explicit TessFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Locks a mapped file's pages in memory (--mlock). Throws FileError with the limit when it is refused.
void lock_pages(const TessFile& file);

}  // namespace tessera
