// Where the hub and its cache are and who asks: the environment variables that huggingface_hub reads.
#pragma once

#include <functional>
#include <string>

namespace tessera::hub {

inline constexpr const char* kPublicEndpoint = "https://huggingface.co";

struct HubSettings {
  std::string endpoint = kPublicEndpoint;  // without a slash at the end
  std::string token;                       // empty: asks without one
  std::string cache;                       // the folder with models--OWNER--NAME
  bool offline = false;
};

// HF_ENDPOINT; HF_TOKEN, HUGGING_FACE_HUB_TOKEN or the file HF_TOKEN_PATH ("HF_HOME/token"), which is not
// read where HF_HUB_DISABLE_IMPLICIT_TOKEN is set; HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE or "HF_HOME/hub";
// HF_HOME or "XDG_CACHE_HOME/huggingface" or "~/.cache/huggingface"; HF_HUB_OFFLINE or
// TRANSFORMERS_OFFLINE. variable looks one up, nullptr when it is not set. Throws HubError for values that
// cannot be meant.
HubSettings read_hub_settings(const std::function<const char*(const char*)>& variable);

}  // namespace tessera::hub
