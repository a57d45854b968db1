# libFuzzer targets: every tests/fuzz/fuzz_NAME.cpp becomes fuzz_NAME; its seeds are in tests/fuzz/corpus/NAME.
# `cmake --preset fuzz` instruments everything; tests/run_all.py --parts fuzz runs what was built.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "TESSERA_FUZZ needs Clang: use cmake --preset fuzz")
endif()
if(NOT TESSERA_SANITIZE MATCHES "fuzzer-no-link")
  message(FATAL_ERROR "TESSERA_FUZZ needs -DTESSERA_SANITIZE=address,undefined,fuzzer-no-link: use cmake --preset fuzz")
endif()

add_custom_target(fuzzers)
file(GLOB fuzz_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.cpp")
foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_compile_definitions(${name} PRIVATE TESSERA_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  # Rooms that read input from outside; higher ones come first so that the linker finds what they use.
  foreach(room tessera_text tessera_format)
    if(TARGET ${room})
      target_link_libraries(${name} PRIVATE ${room})
    endif()
  endforeach()
  add_dependencies(fuzzers ${name})
endforeach()
