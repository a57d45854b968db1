#!/bin/bash
# Makes sure that everything Tessera is built from is here. Looks first and says nothing more when nothing is missing;
# otherwise installs Debian packages as root or by sudo, or names them and exits 1.
#
#   tools/install_dependencies.sh            what building, running and testing need
#   tools/install_dependencies.sh --checks   also Clang with its fuzzer, clang-format and ccache; and where there is nvcc
#                                            without a disassembler, that, into build/disassembler
set -euo pipefail

checks=no
case "${1:-}" in
  "") ;;
  --checks) checks=yes ;;
  *)
    echo "usage: $0 [--checks]" >&2
    exit 2
    ;;
esac

missing=()

need_command() { command -v "$1" >/dev/null || missing+=("$2"); }

need_module() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); }

# Packages of the headers that are not there, asked of the compiler that will read them, in one call for all.
missing_headers() {
  local pair header package
  for pair in "$@"; do
    header=${pair%%=*} package=${pair#*=}
    printf '#if !__has_include(<%s>)\n@%s\n#endif\n' "$header" "$package"
  done | "${CXX:-g++}" -x c++ -std=c++20 -E -P - 2>/dev/null | sed -n 's/^@ *//p' | tr -d ' '
}

find_missing() {
  missing=()
  need_command "${CXX:-g++}" g++
  need_command make make
  need_command cmake cmake
  need_command ninja ninja-build
  need_command pkg-config pkg-config
  need_command python3 python3
  need_module libpcre2-8 libpcre2-dev
  need_module libutf8proc libutf8proc-dev
  need_module libedit libedit-dev
  need_module libxxhash libxxhash-dev
  if command -v "${CXX:-g++}" >/dev/null; then
    # shellcheck disable=SC2207  # package names hold no spaces
    missing+=($(missing_headers fmt/format.h=libfmt-dev cxxopts.hpp=libcxxopts-dev \
      doctest/doctest.h=doctest-dev nlohmann/json.hpp=nlohmann-json3-dev))
  else
    missing+=(libfmt-dev libcxxopts-dev doctest-dev nlohmann-json3-dev)
  fi
  if [ "$checks" = yes ]; then
    need_command clang++ clang
    need_command clang-format clang-format
    need_command ccache ccache
    local runtime=""
    command -v clang++ >/dev/null && runtime=$(clang++ -print-resource-dir)/lib/linux
    compgen -G "$runtime/libclang_rt.fuzzer-*.a" >/dev/null || missing+=(libclang-rt-14-dev)
  fi
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null || [ -t 0 ]; then
    sudo "$@"
  else
    return 1
  fi
}

can_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] && return 0
  command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }
}

# The disassembler of CUDA 13, for tools/kernel_instructions.sh. Checks that need it are skipped without it, so that it
# cannot be had is no error.
fetch_disassembler() {
  local tools=${CUDA_PATH:-/usr/local/cuda}/bin folder nvcc
  folder=$(cd "$(dirname "$0")/.." && pwd)/build/disassembler
  nvcc=$(command -v nvcc || command -v "$tools/nvcc") || return 0
  PATH=$PATH:$(dirname "$nvcc"):$folder/nvidia/cu13/bin
  command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null && return 0
  echo "fetching cuobjdump and nvdisasm"
  rm -rf "$folder"
  if ! { mkdir -p "$folder" && PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --no-deps --target "$folder" \
    'nvidia-cuda-cuobjdump==13.2.*' 'nvidia-cuda-nvdisasm==13.2.*' &&
    chmod +x "$folder"/nvidia/cu13/bin/*; }; then
    echo "cuobjdump could not be fetched: the instructions of CUDA kernels will not be checked" >&2
    rm -rf "$folder"
  fi
}

finish() {
  [ "$checks" = no ] || fetch_disassembler
  exit 0
}

find_missing
[ ${#missing[@]} -eq 0 ] && finish

if can_install; then
  echo "installing ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
  find_missing
  [ ${#missing[@]} -eq 0 ] && finish
  echo "still missing after apt-get install: ${missing[*]}" >&2
  exit 1
fi
{
  echo "missing: ${missing[*]} (names of Debian 12 packages)"
  echo "install them with: apt-get install ${missing[*]}"
} >&2
exit 1
