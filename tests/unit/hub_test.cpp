// The hub's protocol without a network: names, settings, which files, when to try again, and whom to trust.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/hub/choose_files.h"
#include "engine/hub/fetch_blob.h"
#include "engine/hub/file_hash.h"
#include "engine/hub/hub_error.h"
#include "engine/hub/hub_settings.h"
#include "engine/hub/model_name.h"
#include "engine/hub/url.h"
#include "tests/unit/crafted_files.h"

using namespace tessera;
using namespace tessera::hub;

namespace {

template <class Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const HubError& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string hash_of(const std::string& content, size_t digits) {
  ContentHash hash(std::string(digits, '0'), content.size());
  hash.add(bytes_of(content));
  return hash.finish();
}

// A server that is a function of the request.
struct Answer {
  long status = 200;
  std::string body;
  std::map<std::string, std::string> headers = {};
  std::string location = {};
  HttpEnd end = HttpEnd::complete;
  std::optional<uint64_t> retry_after = {};
};

class FakeHttp : public Http {
 public:
  explicit FakeHttp(std::function<Answer(const HttpRequest&)> serve) : serve_(std::move(serve)) {}
  HttpResult get(const HttpRequest& request, const std::function<bool(const HttpHead&)>& begin,
                 const std::function<bool(std::span<const std::byte>)>& data) override {
    requests.push_back(request);
    const Answer answer = serve_(request);
    HttpResult result{
        answer.end, {answer.status, answer.headers, answer.retry_after}, answer.location, "fault"};
    if (answer.end == HttpEnd::unreachable) return result;
    if (!begin(result.head) || (!answer.body.empty() && !data(bytes_of(answer.body))))
      result.end = HttpEnd::stopped;
    return result;
  }
  std::vector<HttpRequest> requests;

 private:
  std::function<Answer(const HttpRequest&)> serve_;
};

// A client of that server which notes how long it waited.
struct Rig {
  explicit Rig(std::function<Answer(const HttpRequest&)> serve) : http(std::move(serve)) {
    settings.endpoint = "https://hub";
    settings.token = "secret";
    events.note = [](const std::string&) {};
    events.wait = [this](std::chrono::milliseconds time) { waited.push_back(time.count() / 1000); };
  }
  std::string text() { return client.get_text("https://hub/x", "the thing").body; }
  bool sent_token(size_t request) const {
    const std::vector<std::string>& headers = http.requests[request].headers;
    return std::find(headers.begin(), headers.end(), "Authorization: Bearer secret") != headers.end();
  }

  FakeHttp http;
  HubSettings settings;
  HubEvents events;
  std::vector<int64_t> waited;
  HubClient client{http, settings, events, "owner/name"};
};

GgufChoice choose(const std::vector<std::string>& paths, std::string_view choice) {
  return choose_gguf(paths, choice, "o/n");
}

}  // namespace

TEST_CASE("names of models") {
  const auto parsed = [](std::string_view text) {
    const ModelName name = parse_model_name(text, "http://mirror");
    return std::vector<std::string>{name.repository, name.choice, name.revision};
  };
  using Parts = std::vector<std::string>;
  CHECK(parsed("a/b") == Parts{"a/b", "", "main"});
  CHECK(parsed("a/b-1.5_x:Q4_K_M") == Parts{"a/b-1.5_x", "Q4_K_M", "main"});
  CHECK(parsed("a/b:sub/f.gguf@refs/pr/1") == Parts{"a/b", "sub/f.gguf", "refs/pr/1"});
  CHECK(parsed("a/b@v1") == Parts{"a/b", "", "v1"});
  for (const char* start : {"http://mirror/", "https://huggingface.co/", "hf.co/", "https://hf.co/"})
    CHECK(parsed(std::string(start) + "a/b:Q8_0") == Parts{"a/b", "Q8_0", "main"});
  for (const char* wrong :
       {"", "a", "/b", "a/", "a/b/c", "../b", "a/..", "a/b:", "a/b@", "a/b:../c", "a/b@../c", "a/b:/c",
        "a b/c", "-a/b", "a/.b", "a/b--c", "http://other/a/b", "a/b:c\nd"}) {
    CAPTURE(wrong);
    CHECK(contains(refusal([&] { parse_model_name(wrong, "http://mirror"); }),
                   "expected a model as owner/name"));
  }
  CHECK(!is_safe_path(std::string("a\0b", 3)));
  CHECK(!is_safe_path(std::string(256, 'a')));
  CHECK(is_safe_path("a/b c/.d/e\xc3\xa9"));
}

TEST_CASE("settings are those of huggingface_hub") {
  const auto read = [](std::map<std::string, std::string> variables) {
    return read_hub_settings([&](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    });
  };
  CHECK(read({{"HOME", "/u"}}).cache == "/u/.cache/huggingface/hub");
  CHECK(read({{"HOME", "/u"}}).endpoint == "https://huggingface.co");
  CHECK(read({{"HOME", "/u"}, {"XDG_CACHE_HOME", "/c"}}).cache == "/c/huggingface/hub");
  CHECK(read({{"HOME", "/u"}, {"HF_HOME", "~/hf"}}).cache == "/u/hf/hub");
  CHECK(read({{"HF_HOME", "/hf"}, {"HF_HUB_CACHE", "/d"}}).cache == "/d");
  CHECK(read({{"HF_HOME", "/hf"}, {"HF_ENDPOINT", "http://x:1//"}}).endpoint == "http://x:1");
  CHECK(read({{"HF_HOME", "/hf"}, {"HF_TOKEN", " t \n"}}).token == "t");
  CHECK(read({{"HF_HOME", "/hf"}, {"HF_HUB_OFFLINE", "yes"}}).offline);
  CHECK(!read({{"HF_HOME", "/hf"}, {"HF_HUB_OFFLINE", "0"}}).offline);
  CHECK(contains(refusal([&] { read({}); }), "neither HF_HOME nor HOME"));
  CHECK(contains(refusal([&] { read({{"HF_HOME", "/hf"}, {"HF_ENDPOINT", "file:///x"}}); }), "HF_ENDPOINT"));
  CHECK(contains(refusal([&] { read({{"HF_HOME", "/hf"}, {"HF_TOKEN", "a\x01b"}}); }), "token"));
  const crafted::Folder folder;
  std::ofstream(folder / "token") << "from-file\n";
  CHECK(read({{"HF_HOME", folder.path()}}).token == "from-file");
  CHECK(read({{"HOME", "/u"}, {"HF_TOKEN_PATH", folder / "token"}}).token == "from-file");
  CHECK(read({{"HF_HOME", folder.path()}, {"HF_TOKEN", "given"}}).token == "given");
  CHECK(read({{"HF_HOME", folder.path()}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}).token.empty());
}

TEST_CASE("which GGUF file") {
  using Paths = std::vector<std::string>;
  const Paths paths = {"README.md",         "m-IQ1_S.gguf",       "m-Q4_K_S.gguf",
                       "m-UD-Q4_K_XL.gguf", "m.Q5_K_M.gguf",      "m-Q8_0-00001-of-00002.gguf",
                       "BF16/m-1.gguf",     "mmproj-m-Q6_K.gguf", "m-Q8_0-00002-of-00002.gguf",
                       "m-Q4_0.gguf",       "imatrix-Q6_K.gguf"};
  CHECK(choose(paths, "").files == Paths{"m-Q4_0.gguf"});
  CHECK(!choose(paths, "").certain);
  CHECK(choose(paths, "q4_k_s").files == Paths{"m-Q4_K_S.gguf"});
  CHECK(choose(paths, "Q4_K_XL").files == Paths{"m-UD-Q4_K_XL.gguf"});
  CHECK(choose(paths, "Q5_K_M").files == Paths{"m.Q5_K_M.gguf"});
  CHECK(choose(paths, "Q8_0").files == Paths{"m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"});
  CHECK(choose(paths, "bf16").files == Paths{"BF16/m-1.gguf"});
  CHECK(choose(paths, "m-1.gguf").files == Paths{"BF16/m-1.gguf"});
  for (const char* wrong : {"Q4_K", "Q4", "Q6_K", "4_0", "Q5_K_M.gguf"})
    CHECK(contains(refusal([&] { choose(paths, wrong); }), "o/n: has no "));
  const Paths usual = {"m-Q4_K_M.gguf", "m-Q4_0.gguf"};
  CHECK(choose(usual, "").files == Paths{"m-Q4_K_M.gguf"});
  CHECK(choose(usual, "").certain);
  const Paths other = {"m-Q8_0.gguf", "m-Q2_K.gguf"};
  CHECK(choose(other, "").files == Paths{"m-Q2_K.gguf"});
  const Paths broken = {"m-00001-of-00002.gguf"};
  CHECK(contains(refusal([&] { choose(broken, ""); }), "m-00002-of-00002.gguf is missing"));
  const Paths none = {"a.txt"};
  CHECK(!has_gguf(none));
  CHECK(contains(refusal([&] { choose(none, "Q8_0"); }), "it has a.txt"));
}

TEST_CASE("hashes are SHA-256 and git's") {
  CHECK(hash_of("abc", 64) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash_of("hello\n", 40) == "ce013625030ba8dba906f756967f9e9ca394464a");
  CHECK(hash_of("", 40) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  CHECK(is_content_hash(std::string(40, 'a')));
  CHECK(!is_content_hash(std::string(40, 'A')));
  CHECK(!is_content_hash(std::string(63, 'a')));
}

TEST_CASE("what fails is tried again, five times at most and ever later") {
  Rig busy([](const HttpRequest&) { return Answer{503, ""}; });
  CHECK(contains(refusal([&] { busy.text(); }),
                 "owner/name: the thing: the hub answers with status 503, 5 times"));
  CHECK(busy.waited == std::vector<int64_t>{1, 2, 4, 8});

  size_t count = 0;
  Rig once([&](const HttpRequest&) {
    return ++count == 1 ? Answer{429, "", {}, "", HttpEnd::complete, 7}
           : count == 2 ? Answer{200, "ha", {}, "", HttpEnd::cut}
                        : Answer{200, "whole"};
  });
  CHECK(once.text() == "whole");
  CHECK(once.waited == std::vector<int64_t>{7, 2});

  Rig late([](const HttpRequest&) { return Answer{429, "", {}, "", HttpEnd::complete, 301}; });
  CHECK(contains(refusal([&] { late.text(); }), "try again in 6 minutes"));
  CHECK(late.waited.empty());

  Rig away([](const HttpRequest&) { return Answer{0, "", {}, "", HttpEnd::unreachable}; });
  CHECK_THROWS_AS(away.text(), NoConnection);
  CHECK(away.waited.empty());

  Rig gone([&](const HttpRequest&) {
    return Answer{500, "", {}, "", gone.http.requests.size() > 1 ? HttpEnd::unreachable : HttpEnd::complete};
  });
  CHECK(contains(refusal([&] { gone.text(); }), "fault, 5 times"));
}

TEST_CASE("the token goes to the endpoint alone") {
  Rig rig([](const HttpRequest& request) {
    if (request.url == "https://hub/x") return Answer{307, "", {}, "https://hub/y"};
    if (request.url == "https://hub/y") return Answer{302, "", {}, "https://hub.evil/z"};
    if (request.url == "https://hub.evil/z") return Answer{302, "", {}, "https://hub@evil/z"};
    return Answer{200, "done"};
  });
  CHECK(rig.text() == "done");
  REQUIRE(rig.http.requests.size() == 4);
  CHECK(rig.sent_token(0));
  CHECK(rig.sent_token(1));
  CHECK(!rig.sent_token(2));
  CHECK(!rig.sent_token(3));
  for (const char* target : {"http://hub/y", "file:///etc/passwd", "https://", ""}) {
    Rig worse([&](const HttpRequest&) { return Answer{302, "", {}, target}; });
    CHECK(contains(refusal([&] { worse.text(); }), "expected http"));
  }
  CHECK(origin_of("https://a:1/b") == "https://a:1");
  CHECK(origin_of("https://a\\@b/c") == "https://a");
  CHECK(origin_of("ftp://a/").empty());
  CHECK(percent_encoded("a/b c%\xc3", true) == "a/b%20c%25%C3");
}

TEST_CASE("a server that sends a byte at a time does not hold us for ever") {
  const crafted::Folder folder;
  const std::string content(100, 'x');
  const HubFile file{"f.gguf", content.size(), hash_of(content, 64)};
  const RepositoryCache cache(folder.path(), "owner/name");
  Rig rig([&](const HttpRequest& request) {
    const size_t first =
        static_cast<size_t>(std::count_if(request.headers.begin(), request.headers.end(),
                                          [](const std::string& each) { return each[0] == 'R'; }));
    const uint64_t have = first == 0 ? 0 : rig.http.requests.size() - 1;
    return Answer{first == 0 ? 200 : 206,
                  "x",
                  {{"content-range", "bytes " + std::to_string(have) + "-99/100"}},
                  "",
                  HttpEnd::cut};
  });
  CHECK(contains(refusal([&] { fetch_blob(rig.client, cache, "c", file, [](uint64_t) {}); }),
                 "fault, 5 times"));
  CHECK(rig.http.requests.size() == 5);
  CHECK(bytes_present(cache, file) == 5);

  Rig whole([&](const HttpRequest&) {
    return Answer{206, content.substr(5), {{"content-range", "bytes 5-99/100"}}};
  });
  std::vector<uint64_t> seen;
  fetch_blob(whole.client, cache, "c", file, [&](uint64_t bytes) { seen.push_back(bytes); });
  CHECK(seen == std::vector<uint64_t>{100});
  CHECK(whole.http.requests.size() == 1);
  CHECK(file_bytes(cache.blob(file.hash)) == 100);
}
