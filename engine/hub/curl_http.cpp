// libcurl behind engine/hub/http.h.
#include <curl/curl.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <new>

#include "engine/hub/http.h"
#include "engine/hub/hub_error.h"
#include "engine/hub/url.h"

namespace tessera::hub {

namespace {

constexpr long kConnectSeconds = 15;
constexpr long kSilentSeconds = 30;  // fewer than kLeastBytes in a second for so long end a transfer
constexpr long kLeastBytes = 16;
constexpr long kBufferBytes = 256 * 1024;
constexpr size_t kMostHeaderBytes = 256 * 1024;

// The functions of libcurl in use. It stays loaded: it has threads and handlers of its own.
struct Library {
  decltype(&::curl_global_init) global_init = nullptr;
  decltype(&::curl_easy_init) init = nullptr;
  decltype(&::curl_easy_cleanup) cleanup = nullptr;
  decltype(&::curl_easy_reset) reset = nullptr;
  decltype(&::curl_easy_setopt) set = nullptr;
  decltype(&::curl_easy_perform) perform = nullptr;
  decltype(&::curl_easy_getinfo) info = nullptr;
  decltype(&::curl_easy_strerror) text = nullptr;
  decltype(&::curl_slist_append) append = nullptr;
  decltype(&::curl_slist_free_all) free_list = nullptr;
};

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) throw HubError(fmt::format("libcurl has no function {}", name));
}

Library load_library() {
  void* handle = nullptr;
  for (const char* name : {"libcurl.so.4", "libcurl-gnutls.so.4"})
    if (handle == nullptr) handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    throw HubError("libcurl.so.4 was not found: install the Debian package libcurl4 to download models");
  Library library;
  find(handle, "curl_global_init", library.global_init);
  find(handle, "curl_easy_init", library.init);
  find(handle, "curl_easy_cleanup", library.cleanup);
  find(handle, "curl_easy_reset", library.reset);
  find(handle, "curl_easy_setopt", library.set);
  find(handle, "curl_easy_perform", library.perform);
  find(handle, "curl_easy_getinfo", library.info);
  find(handle, "curl_easy_strerror", library.text);
  find(handle, "curl_slist_append", library.append);
  find(handle, "curl_slist_free_all", library.free_list);
  if (library.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw HubError("libcurl cannot be started");
  return library;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

// One transfer as libcurl's callbacks see it.
struct Transfer {
  const std::function<bool(const HttpHead&)>& begin;
  const std::function<bool(std::span<const std::byte>)>& data;
  HttpHead head;
  size_t header_bytes = 0;
  bool begun = false;
  bool stopped = false;
  std::exception_ptr thrown;

  // What a callback does, without its exceptions, which must not pass through C.
  template <class Action>
  bool guarded(const Action& action) {
    try {
      if (action()) return true;
      stopped = true;
    } catch (...) {
      thrown = std::current_exception();
    }
    return false;
  }

  bool start() {
    if (begun) return true;
    begun = true;
    return begin(head);
  }

  bool add_header(std::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMostHeaderBytes)
      throw HubError(fmt::format("the hub's answer has more than {} bytes of headers", kMostHeaderBytes));
    if (line.substr(0, 5) == "HTTP/") {  // those of an earlier answer, "100 Continue", do not count
      head = {};
      const size_t space = line.find(' ');
      const std::string_view status =
          space == std::string_view::npos ? std::string_view{} : trimmed(line.substr(space));
      std::from_chars(status.data(), status.data() + status.size(), head.status);
      return true;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return true;
    std::string name(trimmed(line.substr(0, colon)));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    head.headers[name] = trimmed(line.substr(colon + 1));
    return true;
  }
};

size_t on_header(char* text, size_t, size_t size, void* user) {
  auto* const transfer = static_cast<Transfer*>(user);
  return transfer->guarded([&] { return transfer->add_header({text, size}); }) ? size : 0;
}

size_t on_data(char* text, size_t, size_t size, void* user) {
  auto* const transfer = static_cast<Transfer*>(user);
  const bool go_on = transfer->guarded(
      [&] { return transfer->start() && transfer->data(std::as_bytes(std::span(text, size))); });
  return go_on ? size : CURL_WRITEFUNC_ERROR;
}

class CurlHttp : public Http {
 public:
  CurlHttp() : library_(load_library()), handle_(library_.init()) {
    if (handle_ == nullptr) throw HubError("libcurl cannot be started");
  }
  ~CurlHttp() override { library_.cleanup(handle_); }
  CurlHttp(const CurlHttp&) = delete;
  CurlHttp& operator=(const CurlHttp&) = delete;

  HttpResult get(const HttpRequest& request, const std::function<bool(const HttpHead&)>& begin,
                 const std::function<bool(std::span<const std::byte>)>& data) override {
    Transfer transfer{begin, data, {}, 0, false, false, nullptr};
    const auto free_list = library_.free_list;
    std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, free_list);
    for (const std::string& header : request.headers) {
      curl_slist* const longer = library_.append(headers.get(), header.c_str());
      if (longer == nullptr) throw std::bad_alloc();
      static_cast<void>(headers.release());
      headers.reset(longer);
    }
    std::array<char, CURL_ERROR_SIZE> words{};
    library_.reset(handle_);  // connections stay open
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    set(CURLOPT_LOW_SPEED_LIMIT, kLeastBytes);
    set(CURLOPT_LOW_SPEED_TIME, kSilentSeconds);
    set(CURLOPT_BUFFERSIZE, kBufferBytes);
    set(CURLOPT_USERAGENT, "tessera");
    set(CURLOPT_HTTPHEADER, headers.get());
    set(CURLOPT_HEADERFUNCTION, on_header);
    set(CURLOPT_HEADERDATA, &transfer);
    set(CURLOPT_WRITEFUNCTION, on_data);
    set(CURLOPT_WRITEDATA, &transfer);
    set(CURLOPT_ERRORBUFFER, words.data());
    for (const char* variable : {"SSL_CERT_FILE", "CURL_CA_BUNDLE"})
      if (const char* file = std::getenv(variable); file != nullptr && *file != '\0')
        set(CURLOPT_CAINFO, file);

    CURLcode code = library_.perform(handle_);
    library_.set(handle_, CURLOPT_ERRORBUFFER, static_cast<char*>(nullptr));
    if (code == CURLE_OK && !transfer.guarded([&] { return transfer.start(); })) code = CURLE_WRITE_ERROR;
    if (transfer.thrown) std::rethrow_exception(transfer.thrown);

    HttpResult result;
    result.head = std::move(transfer.head);
    result.fault = words[0] != '\0' ? words.data() : library_.text(code);
    char* location = nullptr;
    if (library_.info(handle_, CURLINFO_REDIRECT_URL, &location) == CURLE_OK && location != nullptr)
      result.location = location;
    curl_off_t seconds = 0;
    if (library_.info(handle_, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0)
      result.head.retry_after = static_cast<uint64_t>(seconds);
    result.end = transfer.stopped ? HttpEnd::stopped : end_of(code, request.url, result.fault);
    return result;
  }

 private:
  template <class Value>
  void set(CURLoption option, Value value) {
    const CURLcode code = library_.set(handle_, option, value);
    if (code != CURLE_OK)
      throw HubError(fmt::format("libcurl: option {}: {}", static_cast<int>(option), library_.text(code)));
  }

  HttpEnd end_of(CURLcode code, const std::string& url, const std::string& fault) {
    switch (code) {
      case CURLE_OK:
        return HttpEnd::complete;
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_RESOLVE_PROXY:
      case CURLE_COULDNT_CONNECT:
        return HttpEnd::unreachable;
      case CURLE_OPERATION_TIMEDOUT: {
        double connected = 0;
        library_.info(handle_, CURLINFO_CONNECT_TIME, &connected);
        return connected > 0 ? HttpEnd::cut : HttpEnd::unreachable;
      }
      case CURLE_PEER_FAILED_VERIFICATION:
      case CURLE_SSL_CACERT_BADFILE:
        throw HubError(
            fmt::format("{}: its certificate cannot be verified ({}); SSL_CERT_FILE names the "
                        "certificates to trust",
                        origin_of(url), fault));
      case CURLE_URL_MALFORMAT:
      case CURLE_UNSUPPORTED_PROTOCOL:
      case CURLE_OUT_OF_MEMORY:
        throw HubError(fmt::format("{}: {}", origin_of(url), fault));
      default:  // faults of sending, receiving and of the protocols between
        return HttpEnd::cut;
    }
  }

  Library library_;
  CURL* handle_;
};

}  // namespace

std::unique_ptr<Http> open_curl() { return std::make_unique<CurlHttp>(); }

}  // namespace tessera::hub
