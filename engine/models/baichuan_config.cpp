#include "engine/models/baichuan_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/models/gguf_settings.h"
#include "engine/models/llama_config.h"
#include "gguf-like-format/hyperparameter_checks.h"
#include "gguf-like-format/strict_json.h"

namespace tessera {

Hyperparameters read_baichuan_config(const nlohmann::json& document, const JsonFields& config,
                                     const HuggingFaceClass& type, std::vector<std::string>& notes) {
  constexpr std::string_view kFirstSpelling = "BaiChuanForCausalLM";  // of the first 7B
  nlohmann::json named = document;
  HuggingFaceClass spelled = type;
  if (config.find("architectures") != nullptr) {
    const nlohmann::json& names = config.array("architectures");
    if (std::find(names.begin(), names.end(), kFirstSpelling) != names.end())
      spelled.architecture = kFirstSpelling;
  }
  // Only models with rotary positions say how far they reach; the others end where they were trained.
  const bool rotary = config.find("max_position_embeddings") != nullptr;
  if (!rotary) {
    config.integer("model_max_length", 1, header_limits::kMostContext);
    named["max_position_embeddings"] = named["model_max_length"];
  }
  Hyperparameters h = read_llama_config(named, JsonFields(named, config.where(), ""), spelled, notes);
  if (!rotary) h.alibi = kBaichuanAlibi;
  return h;
}

}  // namespace tessera
