// What an interrupted run leaves behind so that the next one can go on: a folder beside the target with the
// stored bytes of every finished layer and the residual stream at the boundary behind the last of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gguf-like-format/file_error.h"
#include "gguf-like-format/mapped_file.h"

namespace tessera::quantize {

// Every file appears whole or not at all and carries the run's key and a hash of its content; what belongs to
// another run or is damaged is not used. A layer n ends in this order: the
// stream behind it is written, then its bytes, then the stream before it is removed.
class RunFolder {
 public:
  // Makes TARGET.calibration and locks it against other processes. Throws FileError.
  RunFolder(const std::string& target, uint64_t key);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const;

  // The number of layers that need not be computed again: their bytes are there and so is the stream behind
  // the last of them, of stream_floats values. Removes every other file of a run.
  size_t finished_layers(size_t layers, uint64_t stream_floats);

  void store_layer(size_t layer, std::span<const std::byte> bytes);
  std::vector<std::byte> layer(size_t layer) const;  // throws FileError when it is gone or damaged

  // The residual stream before `layer`, f32 [tokens, hidden]: read through the page cache, so that it takes
  // no memory of its own.
  class Stream {
   public:
    std::span<const float> values() const;

   private:
    friend class RunFolder;
    MappedFile file_;
  };
  Stream open_stream(size_t layer) const;

  class StreamWriter {
   public:
    ~StreamWriter();
    StreamWriter(StreamWriter&&) noexcept;
    StreamWriter& operator=(StreamWriter&&) noexcept;
    void append(std::span<const float> values);
    void commit();  // durable from here on

   private:
    friend class RunFolder;
    struct State;
    explicit StreamWriter(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
  };
  StreamWriter write_stream(size_t layer) const;
  void remove_stream(size_t layer);

  void remove();  // the run is over: nothing stays

 private:
  std::string layer_path(size_t layer) const;
  std::string stream_path(size_t layer) const;
  std::string path_;
  uint64_t key_;
  int lock_ = -1;
};

}  // namespace tessera::quantize
