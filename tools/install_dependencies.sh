#!/bin/bash
# Makes sure that everything Tessera is built from is here. Looks first and says nothing more when nothing is missing;
# otherwise installs Debian packages as root or by sudo, or names them and exits 1.
#
#   tools/install_dependencies.sh            what building, running and testing need
#   tools/install_dependencies.sh --checks   also Clang with its fuzzer, clang-format and ccache; a cross compiler for
#                                            aarch64, the emulator that runs its programs and the libraries they need
#                                            (into build/aarch64-libraries); and where there is nvcc without a
#                                            disassembler, that (into build/disassembler)
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
  need_module nettle nettle-dev
  need_module libcurl libcurl4-openssl-dev
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
    need_command aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
    need_command qemu-aarch64 qemu-user
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

build_folder() { (cd "$(dirname "$0")/.." && echo "$PWD/build"); }

# Debian's libraries for aarch64, unpacked into a folder that cmake/aarch64.cmake reads: installing them would make
# aarch64 an architecture of this system and upgrade the same packages of its own. apt-get reads lists of its own, so
# that this needs no rights. Without them only the aarch64 preset cannot be configured, and says so.
fetch_aarch64_libraries() {
  local folder work
  local -a packages=({libfmt-dev,libfmt9,libpcre2-dev,libpcre2-8-0,libutf8proc-dev,libutf8proc2}:arm64
    {libxxhash-dev,libxxhash0,libedit-dev,libedit2,libtinfo6,libbsd0,libmd0}:arm64
    {nettle-dev,libnettle8,libcurl4-openssl-dev}:arm64)
  folder=$(build_folder)/aarch64-libraries
  [ "$(cat "$folder/packages" 2>/dev/null)" = "${packages[*]}" ] && return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 0
  echo "fetching the libraries for aarch64"
  work=$folder.new
  rm -rf "$work"
  if (mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/root" &&
    cd "$work/packages" &&
    apt_for_aarch64() {
      apt-get -q -o APT::Architectures::=arm64 -o APT::Sandbox::User=root -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work/cache" "$@"
    } &&
    apt_for_aarch64 update &&
    apt_for_aarch64 download "${packages[@]}" &&
    for package in *.deb; do dpkg-deb -x "$package" "$work/root" || exit 1; done &&
    echo "${packages[*]}" >"$work/root/packages"); then
    rm -rf "$folder"
    mv "$work/root" "$folder"
  else
    echo "the libraries for aarch64 could not be fetched: the preset aarch64 cannot be built" >&2
  fi
  rm -rf "$work"
}

# The disassembler of CUDA 13, for tools/kernel_instructions.sh. Checks that need it are skipped without it, so that it
# cannot be had is no error.
fetch_disassembler() {
  local tools=${CUDA_PATH:-/usr/local/cuda}/bin folder nvcc
  folder=$(build_folder)/disassembler
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
  if [ "$checks" = yes ]; then
    fetch_aarch64_libraries
    fetch_disassembler
  fi
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
