# The emulator of CUDA threads, and the CUDA backend compiled for it by the host's compiler.
file(GLOB emulator_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/backends/cuda/emulator/*.cpp"
     "${CMAKE_SOURCE_DIR}/backends/cuda/emulator/runtime/*.cpp" "${CMAKE_SOURCE_DIR}/backends/cuda/*.cpp")
file(GLOB_RECURSE emulated_kernels CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/backends/cuda/*.cu")

# Adds a kernel source to a target as C++ for the emulator. CMake gives a source one language in all targets of a folder,
# and with nvcc a .cu file is CUDA: so the target gets a generated .cpp that includes it.
function(tessera_add_emulated_kernel target kernel)
  file(RELATIVE_PATH name "${CMAKE_SOURCE_DIR}" "${kernel}")
  string(REPLACE "/" "_" name "${name}")
  set(host_source "${CMAKE_BINARY_DIR}/emulated_kernels/${name}.cpp")
  file(CONFIGURE OUTPUT "${host_source}" CONTENT "#include \"${kernel}\"\n")
  target_sources(${target} PRIVATE "${host_source}")
endfunction()

add_library(tessera_cuda_emulator STATIC ${emulator_sources})
foreach(kernel ${emulated_kernels})
  tessera_add_emulated_kernel(tessera_cuda_emulator "${kernel}")
endforeach()
target_compile_definitions(tessera_cuda_emulator PUBLIC TESSERA_CUDA_EMULATED)
target_link_libraries(tessera_cuda_emulator PUBLIC tessera_backend fmt::fmt)
