// Fuzzes chat templates: parsing and rendering any bytes must end with a text or a TemplateError.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/chat_template/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<tessera::ChatMessage> messages = {{"system", " Be kind.\n"},
                                                             {"user", "Héllo 你好 \xff {{ x }}"},
                                                             {"assistant", "<think>a</think>\n\nHi!"},
                                                             {"user", ""}};
  static const tessera::TemplateInputs inputs{"<s>", "</s>", true, "26 Jul 2024"};
  try {
    const tessera::ChatTemplate parsed(std::string_view(reinterpret_cast<const char*>(data), size));
    parsed.render(messages, inputs);
  } catch (const tessera::TemplateError& error) {
    // An error must be one line.
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) __builtin_trap();
  }
  return 0;
}
