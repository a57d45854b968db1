# The executable and the model inside it: the checkpoint in TESSERA_EMBED_MODEL is quantized by a build step and
# linked in as read-only bytes. A change of the checkpoint, or of anything that quantizes it, makes it anew.
enable_language(ASM)

add_executable(embed_model tools/embed_model.cpp)
target_link_libraries(embed_model PRIVATE tessera_quantize)

file(GLOB embedded_checkpoint CONFIGURE_DEPENDS "${TESSERA_EMBED_MODEL}/*.safetensors" "${TESSERA_EMBED_MODEL}/*.json"
     "${TESSERA_EMBED_MODEL}/*.model")
if(NOT EXISTS "${TESSERA_EMBED_MODEL}/config.json")
  message(FATAL_ERROR "TESSERA_EMBED_MODEL: ${TESSERA_EMBED_MODEL} is no checkpoint folder: it has no config.json")
endif()
set(embedded_file "${CMAKE_BINARY_DIR}/embedded.tess")
add_custom_command(OUTPUT "${embedded_file}"
  COMMAND embed_model "${TESSERA_EMBED_MODEL}" "${embedded_file}"
  DEPENDS embed_model ${embedded_checkpoint}
  COMMENT "Quantizing the embedded model" VERBATIM)

set(embedded_source "${CMAKE_SOURCE_DIR}/engine/embedded/embedded_model.S")
set_source_files_properties("${embedded_source}" PROPERTIES
  OBJECT_DEPENDS "${embedded_file}" COMPILE_DEFINITIONS "TESSERA_EMBEDDED_FILE=\"${embedded_file}\"")
add_library(tessera_embedded STATIC engine/embedded/embedded_model.cpp "${embedded_source}")

add_executable(tessera main.cpp)
target_link_libraries(tessera PRIVATE tessera_commands tessera_embedded)
# Commands name the embedded model, so whatever links them needs its bytes behind them.
target_link_libraries(tessera_commands PUBLIC tessera_embedded)
set(embedded_model_test_rooms tessera_embedded tessera_quantize)
