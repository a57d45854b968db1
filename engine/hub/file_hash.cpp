#include "engine/hub/file_hash.h"

#include <fmt/format.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>

#include <algorithm>
#include <array>
#include <cassert>

namespace tessera::hub {

namespace {

constexpr size_t kSha1Digits = 2 * SHA1_DIGEST_SIZE;
constexpr size_t kSha256Digits = 2 * SHA256_DIGEST_SIZE;

std::string hexadecimal(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

bool is_content_hash(std::string_view text) {
  return (text.size() == kSha1Digits || text.size() == kSha256Digits) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

struct ContentHash::State {
  bool git = false;
  sha1_ctx sha1{};
  sha256_ctx sha256{};
};

ContentHash::ContentHash(std::string_view expected, uint64_t bytes) : state_(std::make_unique<State>()) {
  assert(is_content_hash(expected));
  state_->git = expected.size() == kSha1Digits;
  sha1_init(&state_->sha1);
  sha256_init(&state_->sha256);
  if (!state_->git) return;
  std::string start = fmt::format("blob {}", bytes);
  start.push_back('\0');
  add(std::as_bytes(std::span(start)));
}

ContentHash::~ContentHash() = default;
ContentHash::ContentHash(ContentHash&&) noexcept = default;
ContentHash& ContentHash::operator=(ContentHash&&) noexcept = default;

void ContentHash::add(std::span<const std::byte> bytes) {
  const auto* const data = reinterpret_cast<const uint8_t*>(bytes.data());
  if (state_->git)
    sha1_update(&state_->sha1, bytes.size(), data);
  else
    sha256_update(&state_->sha256, bytes.size(), data);
}

std::string ContentHash::finish() {
  std::array<uint8_t, SHA256_DIGEST_SIZE> digest{};
  if (state_->git) {
    sha1_digest(&state_->sha1, SHA1_DIGEST_SIZE, digest.data());
    return hexadecimal(std::span(digest).first(SHA1_DIGEST_SIZE));
  }
  sha256_digest(&state_->sha256, SHA256_DIGEST_SIZE, digest.data());
  return hexadecimal(digest);
}

}  // namespace tessera::hub
