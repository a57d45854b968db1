# Unit and golden tests: one executable per file named <room>_test.cpp or <feature>_test.cpp.
file(GLOB test_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/unit/*_test.cpp"
     "${CMAKE_SOURCE_DIR}/tests/golden/*_test.cpp")
set(TESSERA_SHARED_DIR "${CMAKE_SOURCE_DIR}/../shared" CACHE PATH "Folder with the shared models and tokenizers")
set(test_rooms tessera_engine tessera_quantize tessera_reference tessera_cpu tessera_checkpoint tessera_text tessera_models tessera_codec
    tessera_graph tessera_format)
# Built alone with the thread sanitizer: all else would be compiled for nothing.
set(thread_pool_test_rooms Threads::Threads)
set(thread_pool_test_sources backends/cpu/thread_pool.cpp backends/cpu/cpu_features.cpp)
# Built alone with Clang at full optimization.
foreach(name cpu_kernels_test cpu_table_kernels_test cpu_row_kernels_test cpu_attention_kernels_test)
  set(${name}_rooms tessera_cpu)
endforeach()
# What the instruments compute, apart from the verb that prints it.
foreach(name bench_report_test key_decoder_test report_table_test verbs_test)
  set(${name}_rooms tessera_commands)
endforeach()
set(hub_test_rooms tessera_hub)
add_library(doctest_main OBJECT tests/doctest_main.cpp)
target_link_libraries(doctest_main PUBLIC doctest::doctest)
# What is tested is optimized; full optimization of the tests themselves takes longer than it saves them, and any of
# those that compute little themselves.
set(TESSERA_TEST_OPTIONS $<$<CONFIG:Release>:-O1>)
set(plain_tests added_tokens_test backend_faults_test chat_format_test column_order_test gguf_file_test gguf_source_test
    gguf_tokenizer_test hub_test huggingface_config_test kept_model_test mapped_file_test model_graph_test
    packed_checkpoint_test packed_golden_test quoted_text_test real_models_test safetensors_test tess_writer_test
    tokenizer_files_test)
foreach(source ${test_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} ${${name}_sources})
  if(name IN_LIST plain_tests)
    target_compile_options(${name} PRIVATE -O0)
    set(kind plain_tests)
  else()
    target_compile_options(${name} PRIVATE ${TESSERA_TEST_OPTIONS})
    set(kind tests)
  endif()
  target_compile_definitions(${name} PRIVATE
    TESSERA_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TESSERA_SHARED_DIR="${TESSERA_SHARED_DIR}")
  set(rooms ${test_rooms})
  if(DEFINED ${name}_rooms)
    set(rooms ${${name}_rooms})
  endif()
  foreach(room ${rooms})
    if(TARGET ${room})
      target_link_libraries(${name} PRIVATE ${room})
    endif()
  endforeach()
  target_link_libraries(${name} PRIVATE doctest_main)
  tessera_precompile(${name} ${kind} <doctest/doctest.h>)
  add_test(NAME ${name} COMMAND ${name})
endforeach()
# An emulator takes too long for the trained models, but not for the random ones.
if(CMAKE_CROSSCOMPILING)
  add_test(NAME random_model_golden_test COMMAND model_golden_test "--test-case=random models*")
endif()
include(tests/cuda/cuda_tests.cmake)
