# Unit and golden tests: one executable per file named <room>_test.cpp or <feature>_test.cpp, each with doctest's main.
file(GLOB test_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/unit/*_test.cpp"
     "${CMAKE_SOURCE_DIR}/tests/golden/*_test.cpp")
set(TESSERA_SHARED_DIR "${CMAKE_SOURCE_DIR}/../shared" CACHE PATH "Folder with the shared models and tokenizers")
set(test_rooms tessera_engine tessera_quantize tessera_reference tessera_cpu tessera_text tessera_graph tessera_format)
# Built alone with the thread sanitizer: everything else would be compiled for nothing.
set(thread_pool_test_rooms tessera_cpu)
# What the instruments compute, apart from the verb that prints it.
foreach(name logit_comparison_test report_table_test layer_costs_test side_by_side_test verbs_test)
  set(${name}_rooms tessera_commands)
endforeach()
foreach(source ${test_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_compile_definitions(${name} PRIVATE DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
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
  target_link_libraries(${name} PRIVATE doctest::doctest)
  add_test(NAME ${name} COMMAND ${name})
endforeach()
include(tests/simt/simt.cmake)
