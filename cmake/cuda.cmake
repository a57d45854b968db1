# The CUDA backend. TESSERA_CUDA is ON, OFF or AUTO: AUTO builds it where nvcc is found, except with sanitizers, fuzzing
# or another compiler than GCC: those builds have only the emulator of backends/cuda/emulator. CMAKE_CUDA_ARCHITECTURES
# (or CUDAARCHS in the environment) chooses the targets.
set(TESSERA_CUDA AUTO CACHE STRING "Build the CUDA backend: ON, OFF or AUTO (where nvcc is found)")
set_property(CACHE TESSERA_CUDA PROPERTY STRINGS AUTO ON OFF)

set(tessera_cuda_wanted ${TESSERA_CUDA})
if(TESSERA_CUDA STREQUAL AUTO AND (TESSERA_SANITIZE OR TESSERA_FUZZ OR NOT CMAKE_CXX_COMPILER_ID STREQUAL GNU))
  set(tessera_cuda_wanted OFF)
endif()
if(tessera_cuda_wanted)
  find_program(TESSERA_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT TESSERA_NVCC AND NOT TESSERA_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "TESSERA_CUDA=${TESSERA_CUDA}: nvcc was not found in PATH, CUDA_PATH or /usr/local/cuda")
  endif()
endif()

if(tessera_cuda_wanted AND TESSERA_NVCC)
  set(CMAKE_CUDA_COMPILER "${TESSERA_NVCC}")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 90-virtual)
  endif()
  enable_language(CUDA)
  if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  # Index maps and other constexpr functions are shared with the host.
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra>")
  file(GLOB cuda_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/backends/cuda/*.cpp"
       "${CMAKE_SOURCE_DIR}/backends/cuda/runtime/*.cpp")
  file(GLOB_RECURSE cuda_kernels CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/backends/cuda/*.cu")
  add_library(tessera_cuda STATIC ${cuda_sources} ${cuda_kernels})
  target_include_directories(tessera_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(tessera_cuda PUBLIC tessera_backend fmt::fmt ${CMAKE_DL_LIBS})
  message(STATUS "CUDA backend: ${TESSERA_NVCC}, ${CMAKE_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CUDA backend: off")
endif()
