# Cross compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu and runs what it has built, tests and build steps
# alike, in qemu-user. The libraries are Debian's of that architecture, unpacked by "make deps DEPS=--checks";
# libraries that are headers only come from the host.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_ASM_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64;-L;/usr/aarch64-linux-gnu")

cmake_path(ABSOLUTE_PATH CMAKE_CURRENT_LIST_DIR NORMALIZE OUTPUT_VARIABLE aarch64_libraries)
cmake_path(GET aarch64_libraries PARENT_PATH aarch64_libraries)
cmake_path(APPEND aarch64_libraries build aarch64-libraries)
if(NOT EXISTS "${aarch64_libraries}/usr")
  message(FATAL_ERROR "${aarch64_libraries} is missing: make deps DEPS=--checks fetches the aarch64 libraries")
endif()

set(CMAKE_FIND_ROOT_PATH "${aarch64_libraries}" /usr/aarch64-linux-gnu)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} "${aarch64_libraries}/usr/lib/aarch64-linux-gnu/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${aarch64_libraries}")
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES "${aarch64_libraries}/usr/include")
# DT_RPATH, unlike DT_RUNPATH, is also searched for the libraries that a library needs.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--disable-new-dtags")
foreach(folder usr/lib lib)
  string(APPEND CMAKE_EXE_LINKER_FLAGS_INIT " -Wl,-rpath,${aarch64_libraries}/${folder}/aarch64-linux-gnu")
endforeach()
