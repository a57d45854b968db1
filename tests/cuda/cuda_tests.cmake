# Tests of the CUDA backend on the emulator, and of the emulator itself. A test that can run on a device too is built a
# second time, as <name>_device_test, where the build has nvcc.
include(backends/cuda/emulator/emulator.cmake)
file(GLOB cuda_tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/cuda/*_test.cpp")
set(instruction_probes "${CMAKE_SOURCE_DIR}/tests/cuda/instruction_probes.cu")

function(tessera_cuda_test name source backend)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE tessera_reference tessera_split doctest_main ${backend})
  add_test(NAME ${name} COMMAND ${name})
  # A copy of its stack for each fiber, one for every thread of every block, would make the sanitizer ten times slower.
  set_tests_properties(${name} PROPERTIES ENVIRONMENT
                       "ASAN_OPTIONS=detect_stack_use_after_return=0:strict_string_checks=1")
endfunction()

foreach(source ${cuda_tests})
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${TESSERA_TEST_OPTIONS}")
  get_filename_component(name ${source} NAME_WE)
  tessera_cuda_test(${name} ${source} tessera_cuda_emulator)
  if(TARGET tessera_cuda AND NOT name STREQUAL emulator_test)
    string(REPLACE _test _device_test device_name ${name})
    tessera_cuda_test(${device_name} ${source} tessera_cuda)
  endif()
endforeach()
tessera_add_emulated_kernel(instructions_test "${instruction_probes}")
if(TARGET tessera_cuda)
  target_sources(instructions_device_test PRIVATE "${instruction_probes}")
endif()
# Long tests begin first, so that the cores end together.
foreach(name session_properties_test cpu_ops_test cuda_ops_test model_golden_test qoq_function_test)
  set_tests_properties(${name} PROPERTIES COST 100)
endforeach()
