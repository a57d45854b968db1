#!/bin/bash
# Compiles every CUDA kernel and prints what it takes, as a Markdown table: registers, static shared memory, stack and
# spills per target, from ptxas. Exit code 1 when a kernel spills. Dynamic shared memory is set at launch and not shown.
#   tools/kernel_resources.sh [TARGET...]     default: 80 90a
# NVCC names the compiler (default: nvcc of PATH or /usr/local/cuda).
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(80 90a)
generate=()
for target in "${targets[@]}"; do generate+=("-gencode" "arch=compute_$target,code=sm_$target"); done
log=$(mktemp)
object=$(mktemp --suffix=.o)
trap 'rm -f "$log" "$object"' EXIT

echo "| kernel | target | registers | shared bytes | stack bytes | spilled bytes |"
echo "|---|---|---|---|---|---|"
for source in $(find backends/cuda -name '*.cu' | sort); do
  "$nvcc" -std=c++20 -O3 -I. --expt-relaxed-constexpr "${generate[@]}" -Xptxas -v -c "$source" -o "$object" 2>"$log" ||
    { cat "$log" >&2; exit 1; }
  # Notes, not warnings: products one after another, or registers that were not handed over.
  if grep -E 'Potential Performance Loss|setmaxnreg' "$log" >&2; then exit 1; fi
  sed -n 's/.*Compiling entry function .\(.*\). for .\(sm_[0-9a-z]*\).*/kernel \1 \2/p
          s/^ *\([0-9]*\) bytes stack frame, \([0-9]*\) bytes spill stores, \([0-9]*\) bytes spill loads.*/stack \1 \2 \3/p
          s/.*Used \([0-9]*\) registers.*, \([0-9]*\) bytes smem.*/used \1 \2/p
          t
          s/.*Used \([0-9]*\) registers.*/used \1 0/p' "$log" |
    awk -v file="${source#backends/cuda/}" '
      $1 == "kernel" { name = $2; target = $3 }
      $1 == "stack" { stack = $2; spilled = $3 + $4 }
      $1 == "used" { print file "\t" name "\t" target "\t" $2 "\t" $3 "\t" stack "\t" spilled }'
done | c++filt | sed -E 's/\(anonymous namespace\):://g; s/tessera::cuda:://g; s/void //; s/\((WeightFormat|(tables::)?LevelForm)\)//g' |
  awk -F'\t' '
    { sub(/\(.*/, "", $2); printf "| %s: `%s` | %s | %s | %s | %s | %s |\n", $1, $2, $3, $4, $5, $6, $7
      if ($7 > 0) spills++ }
    END { exit spills > 0 }'
