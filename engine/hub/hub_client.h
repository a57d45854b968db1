// Requests to a hub: redirects, the token, waiting and trying again, and what its refusals mean.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/hub/http.h"
#include "engine/hub/hub_settings.h"

namespace tessera::hub {

// What the caller hears while a model is fetched.
struct HubEvents {
  std::function<void(std::string_view file)> file;              // this one comes next
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of all files
  std::function<void(const std::string& line)> note;            // something to know
  std::function<void(std::chrono::milliseconds)> wait;          // must sleep that long
};

class HubClient {
 public:
  // http must outlive the client. repository, "owner/name", is what errors speak of.
  HubClient(Http& http, const HubSettings& settings, const HubEvents& events, std::string repository);

  const HubSettings& settings() const { return settings_; }
  const HubEvents& events() const { return events_; }
  const std::string& repository() const { return repository_; }

  struct Answer {
    HttpResult result;
    std::vector<HttpHead> redirects;  // heads of the answers that led there
  };
  // One try, through up to 10 redirects; the token goes to the endpoint's own host only. Callbacks as of
  // Http::get, for the last answer; url is one of the endpoint. Throws HubError where a redirect leads to no
  // http or https URL or from https to http, NoConnection where there was no answer at all.
  Answer get(const std::string& url, const std::vector<std::string>& headers,
             const std::function<bool(const HttpHead&)>& begin,
             const std::function<bool(std::span<const std::byte>)>& data);

  struct Text {
    std::string body;
    HttpHead head;
  };
  // A whole document of up to 32 MiB, tried again as Retries does. Throws HubError for any status but 200;
  // about names the thing that is asked for.
  Text get_text(const std::string& url, const std::string& about);

  // The line for an answer that is no success and that trying again does not change. about names what was
  // asked for. Throws HubError, MissingRepository among them.
  [[noreturn]] void refuse(const HttpHead& head, const std::string& about) const;

 private:
  Http& http_;
  const HubSettings& settings_;
  const HubEvents& events_;
  std::string repository_;
  bool reached_ = false;  // some answer came
};

// How often a request is sent again, and how long it waits before: connections that were cut, 429 and 5xx,
// five tries that bring nothing new, 1 to 8 seconds apart or as long as the hub asks, up to five minutes.
class Retries {
 public:
  Retries(const HubClient& client, std::string about);
  static bool may_help(const HttpResult& result);
  void made_progress() { failures_ = 0; }
  // Waits, or throws the HubError that ends it.
  void wait_after(const HttpResult& failure);

 private:
  const HubClient& client_;
  std::string about_;
  unsigned failures_ = 0;
};

}  // namespace tessera::hub
