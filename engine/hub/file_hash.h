// The two hashes by which a hub names the contents of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera::hub {

// Whether the text is one of those names: 64 small hexadecimal digits, the SHA-256 of a large file, or 40,
// the SHA-1 that git gives a small one.
bool is_content_hash(std::string_view text);

class ContentHash {
 public:
  // For a file of that many bytes whose hash should be expected; only its length, 40 or 64, matters here.
  ContentHash(std::string_view expected, uint64_t bytes);
  ~ContentHash();
  ContentHash(ContentHash&&) noexcept;
  ContentHash& operator=(ContentHash&&) noexcept;
  void add(std::span<const std::byte> bytes);
  std::string finish();  // hexadecimal; once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera::hub
