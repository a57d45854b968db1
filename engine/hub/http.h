// GET over HTTP as the hub's protocol needs it, without redirects: what can be put in its place in tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::hub {

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
};

struct HttpHead {
  long status = 0;
  std::map<std::string, std::string> headers;  // names in small letters
  std::optional<uint64_t> retry_after;         // seconds

  std::string_view header(const std::string& name) const;  // empty where there is none
};

enum class HttpEnd {
  complete,
  cut,          // the connection ended, or nothing more came, before the body was complete
  unreachable,  // no connection to begin with
  stopped       // by a callback
};

struct HttpResult {
  HttpEnd end = HttpEnd::complete;
  HttpHead head;
  std::string location;  // where a redirect leads, as an absolute URL; empty for other answers
  std::string fault;     // what went wrong, for people
};

class Http {
 public:
  virtual ~Http() = default;
  // Sends one GET. begin is called once the head is complete, data with pieces of the body in order; either
  // stops the transfer by returning false, and what they throw reaches the caller. Throws HubError where
  // trying again makes no sense: a certificate that cannot be verified, an impossible URL.
  virtual HttpResult get(const HttpRequest& request, const std::function<bool(const HttpHead&)>& begin,
                         const std::function<bool(std::span<const std::byte>)>& data) = 0;
};

// Through libcurl, which is loaded here: it brings some thirty libraries along, that no other command should
// wait for. Throws HubError naming its Debian package where it is missing.
std::unique_ptr<Http> open_curl();

}  // namespace tessera::hub
