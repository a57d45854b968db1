# With TESSERA_PRECOMPILE the headers of the standard library and of fmt that most files read are parsed once a target
# set, not once a file. Off by default: without it a file that forgets an include does not compile. For Clang: GCC warns
# of code in precompiled headers.
option(TESSERA_PRECOMPILE "Precompile the headers of the standard library, fmt and doctest (Clang)" OFF)
set(precompiled_headers <algorithm> <array> <cstdint> <filesystem> <fstream> <functional> <map> <memory> <optional> <span>
    <sstream> <string> <string_view> <variant> <vector> <fmt/format.h>)

# The first target of a kind compiles its headers (ARGN besides those above), the later ones take them over: all of them
# have the same options.
function(tessera_precompile target kind)
  if(NOT TESSERA_PRECOMPILE)
    return()
  endif()
  get_property(owner GLOBAL PROPERTY tessera_precompiled_${kind})
  if(owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE ${precompiled_headers} ${ARGN})
    set_property(GLOBAL PROPERTY tessera_precompiled_${kind} ${target})
  endif()
endfunction()
