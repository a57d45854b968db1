#include "engine/hub/hub_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/hub/hub_error.h"
#include "engine/hub/url.h"
#include "gguf-like-format/file_error.h"

namespace tessera::hub {

namespace {

constexpr size_t kMostRedirects = 10;
constexpr size_t kMostTextBytes = size_t{32} << 20;
constexpr unsigned kMostTries = 5;
constexpr uint64_t kMostWaitSeconds = 300;
constexpr long kDone = 200, kUnauthorized = 401, kForbidden = 403, kNotFound = 404, kTimedOut = 408,
               kTooMany = 429;

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// What the hub itself says of its refusal, as " (…)".
std::string words_of(const HttpHead& head) {
  const std::string_view message = head.header("x-error-message");
  return message.empty() ? "" : fmt::format(" ({})", printable(message));
}

// Whether the repository is not there or may not be seen.
bool is_missing_repository(const HttpHead& head) {
  const std::string_view code = head.header("x-error-code");
  return code == "RepoNotFound" ||
         (code.empty() && (head.status == kNotFound || head.status == kUnauthorized));
}

}  // namespace

std::string_view HttpHead::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view{} : found->second;
}

HubClient::HubClient(Http& http, const HubSettings& settings, const HubEvents& events, std::string repository)
    : http_(http), settings_(settings), events_(events), repository_(std::move(repository)) {}

HubClient::Answer HubClient::get(const std::string& url, const std::vector<std::string>& headers,
                                 const std::function<bool(const HttpHead&)>& begin,
                                 const std::function<bool(std::span<const std::byte>)>& data) {
  const std::string_view home = origin_of(settings_.endpoint);
  Answer answer;
  HttpRequest request{url, headers};
  for (;;) {
    if (!settings_.token.empty() && origin_of(request.url) == home)
      request.headers.push_back("Authorization: Bearer " + settings_.token);
    bool redirected = false;
    answer.result = http_.get(
        request,
        [&](const HttpHead& head) {
          redirected = is_redirect(head.status);
          return redirected || begin(head);
        },
        [&](std::span<const std::byte> bytes) { return redirected || data(bytes); });
    const HttpResult& result = answer.result;
    if (result.end == HttpEnd::unreachable && !reached_)
      throw NoConnection(
          fmt::format("{} cannot be reached: {}", origin_of(request.url), printable(result.fault)));
    if (result.end != HttpEnd::unreachable) reached_ = true;
    if (result.end != HttpEnd::complete || !redirected) return answer;
    if (answer.redirects.size() == kMostRedirects)
      throw HubError(fmt::format("{}: more than {} redirects", repository_, kMostRedirects));
    const std::string_view next = origin_of(result.location);
    const bool insecure = request.url.substr(0, 6) == "https:" && next.substr(0, 6) != "https:";
    if (next.empty() || insecure)
      throw HubError(fmt::format("{}: the hub sends us to '{}', expected {}", repository_,
                                 printable(result.location),
                                 insecure ? "https://…" : "http:// or https://…"));
    answer.redirects.push_back(result.head);
    request = {result.location, headers};
  }
}

HubClient::Text HubClient::get_text(const std::string& url, const std::string& about) {
  Retries retries(*this, about);
  for (;;) {
    Text text;
    const auto begin = [&](const HttpHead& head) {
      text.head = head;
      return true;
    };
    const auto add = [&](std::span<const std::byte> bytes) {
      if (text.body.size() + bytes.size() > kMostTextBytes)
        throw HubError(
            fmt::format("{}: {}: the answer has more than {} bytes", repository_, about, kMostTextBytes));
      text.body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return true;
    };
    const Answer answer = get(url, {}, begin, add);
    if (Retries::may_help(answer.result)) {
      retries.wait_after(answer.result);
      continue;
    }
    if (text.head.status != kDone) refuse(text.head, about);
    return text;
  }
}

void HubClient::refuse(const HttpHead& head, const std::string& about) const {
  const std::string_view code = head.header("x-error-code");
  const bool has_token = !settings_.token.empty();
  const std::string page = fmt::format("{}/{}", settings_.endpoint, repository_);
  if (code == "GatedRepo")
    throw HubError(fmt::format(
        "{}: gated: accept its conditions at {}, {}", repository_, page,
        has_token ? "with the account of HF_TOKEN" : "then set HF_TOKEN to a token of the same account"));
  if (code == "RevisionNotFound" || code == "EntryNotFound")
    throw HubError(fmt::format("{}: {} was not found", repository_, about));
  if (head.status == kUnauthorized || (is_missing_repository(head) && head.status != kForbidden))
    throw MissingRepository(fmt::format("{}: not found at {}, or private{}: check the name, {}", repository_,
                                        settings_.endpoint, words_of(head),
                                        has_token ? "and whether HF_TOKEN is valid and may read it"
                                                  : "or set HF_TOKEN to a token that may read it"));
  if (head.status == kForbidden)
    throw HubError(fmt::format("{}: the hub refuses access{}: open {} to see what it asks for{}", repository_,
                               words_of(head), page, has_token ? "" : ", and set HF_TOKEN"));
  throw HubError(fmt::format("{}: {}: the hub answers with status {}{}", repository_, about, head.status,
                             words_of(head)));
}

Retries::Retries(const HubClient& client, std::string about) : client_(client), about_(std::move(about)) {}

bool Retries::may_help(const HttpResult& result) {
  if (result.end == HttpEnd::stopped) return false;
  return result.end != HttpEnd::complete || result.head.status == kTimedOut ||
         result.head.status == kTooMany || result.head.status >= 500;
}

void Retries::wait_after(const HttpResult& failure) {
  const bool answered = failure.end == HttpEnd::complete;
  const std::string reason = answered && failure.head.status == kTooMany ? "too many requests (status 429)"
                             : answered && failure.head.status >= 400
                                 ? fmt::format("the hub answers with status {}", failure.head.status)
                             : answered ? std::string("the connection ended too early")
                                        : printable(failure.fault);
  const uint64_t asked = answered ? failure.head.retry_after.value_or(0) : 0;
  if (++failures_ == kMostTries)
    throw HubError(fmt::format("{}: {}: {}, {} times: try again later", client_.repository(), about_, reason,
                               kMostTries));
  if (asked > kMostWaitSeconds)
    throw HubError(fmt::format("{}: {}: {}: try again in {} minutes", client_.repository(), about_, reason,
                               (asked + 59) / 60));
  const uint64_t seconds = std::max<uint64_t>(asked, uint64_t{1} << (failures_ - 1));
  client_.events().note(fmt::format("{}: {}: trying again in {} s", about_, reason, seconds));
  client_.events().wait(std::chrono::seconds(seconds));
}

}  // namespace tessera::hub
