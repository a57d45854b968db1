#!/bin/bash
# Checks that the compiler made of the CUDA kernels what they were written for: disassembles them and looks for the
# instructions that each must have, and for accesses to local memory, which none but the rope table may have. Exit code
# 1 with a line for each kernel that is not as it should be; otherwise a Markdown table of instruction counts.
#   tools/kernel_instructions.sh [BUILD]   the objects of a build folder; without it, sm_80 and sm_90a are compiled here
# NVCC and CUOBJDUMP name the programs (default: those in PATH or /usr/local/cuda, and what make deps has fetched).
# cuobjdump needs nvdisasm in PATH or beside it. Exit code 2 when there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
fetched=build/disassembler/nvidia/cu13/bin
PATH=$PATH:$(dirname "$nvcc"):$PWD/$fetched
dump=$(command -v "${CUOBJDUMP:-cuobjdump}") ||
  { echo "kernel_instructions.sh: cuobjdump was not found; CUOBJDUMP names it, make deps DEPS=--checks fetches it" >&2
    exit 2; }
PATH=$PATH:$(dirname "$dump")

# Kernels, targets (both patterns) and the instructions that must be there. Attention has its operands in shared memory
# as lanes take them: 16 bytes each, no LDSM. The kernels of a decoding step begin early on sm_90 (ACQBULK waits, PREEXIT lets go).
rules='linear_few_tokens<.*, true>|90a?|UBLKCP SYNCS LDGSTS LDSM IMMA
linear_few_tokens<.*, false>|8.|LDGSTS LDSM IMMA
linear_sm80_tiles<|.*|LDGSTS LDSM IMMA
linear_sm90_tiles<|90a|UBLKCP SYNCS LDGSTS IGMMA USETMAXREG
linear_half_|.*|LDGSTS LDSM HMMA
table_.*_tokens<.*Int8Table|.*|LDGSTS PRMT IMMA
table_.*_tokens<.*Bf16Table|.*|LDGSTS PRMT HMMA
table_.*_tokens<.*Bf16PairTable|.*|LDGSTS LDS HMMA
table_.*_tokens<.*Int8Bytes|.*|LDGSTS IMMA
table_.*_tokens<.*Bf16Bytes|.*|LDGSTS PRMT HMMA
table_tiles<Int8Table|90a|UBLKCP SYNCS PRMT IGMMA USETMAXREG
table_tiles<Bf16Table|90a|UBLKCP SYNCS PRMT HGMMA USETMAXREG
table_tiles<Bf16PairTable|90a|UBLKCP SYNCS LDS HGMMA USETMAXREG
table_tiles<Int8Bytes|90a|UBLKCP SYNCS IGMMA USETMAXREG
table_tiles<Bf16Bytes|90a|UBLKCP SYNCS PRMT HGMMA USETMAXREG
attend_pages<[48]u>|.*|LDGSTS LDS.128 IMMA.16832.S8.S8 IMMA.16832.U8.S8
attend_pages<16u>|.*|LDGSTS LDS.128 HMMA.16816.F32
merge_token|.*|LDG.E.64
linear_few|90a?|ACQBULK PREEXIT
linear_half_few|90a?|ACQBULK PREEXIT
linear_sm90_tiles|90a|ACQBULK PREEXIT
table_few|90a?|ACQBULK PREEXIT
table_tiles|90a|ACQBULK PREEXIT
attend_pages|90a?|ACQBULK PREEXIT
merge_token|90a?|ACQBULK PREEXIT
_rows|90a?|ACQBULK PREEXIT
fill_rope_table|90a?|ACQBULK PREEXIT
keep_|90a?|ACQBULK PREEXIT
multiply_blocks|.*|IMMA
multiply_groups|90a|IGMMA'
local_memory_allowed='^fill_rope_table$' # its sines of large angles

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# -gt 0 ]; then
  mapfile -t objects < <(find "$1" -path '*backends/cuda*' -name '*.cu.o')
else
  objects=()
  for source in $(find backends/cuda -name '*.cu' | sort); do
    object=$work/$(basename "$source" .cu).o
    "$nvcc" -std=c++20 -O3 -I. --expt-relaxed-constexpr -gencode arch=compute_80,code=sm_80 \
      -gencode arch=compute_90a,code=sm_90a -c "$source" -o "$object"
    objects+=("$object")
  done
fi
[ ${#objects[@]} -gt 0 ] || { echo "kernel_instructions.sh: no objects of CUDA kernels in $1" >&2; exit 1; }

for object in "${objects[@]}"; do "$dump" -sass "$object"; done |
  awk '/^code for sm_|^[ \t]*arch = sm_/ { sub(/.*sm_/, ""); print "target " $1 }
       /Function : / { print "kernel " $3 }
       /^[ \t]+\/\*[0-9a-f]+\*\// { sub(/^[ \t]*\/\*[0-9a-f]+\*\/[ \t]*/, ""); sub(/^@!?U?P[0-9T]+[ \t]+/, "")
         sub(/[ ;].*/, ""); if ($0 ~ /^[A-Z]/) print "has " $0 }' | c++filt |
  sed -E 's/\(anonymous namespace\):://g; s/tessera::cuda:://g; s/(tables|halves):://g; s/kernel void /kernel /; s/\((WeightFormat|LevelForm)\)//g
          s/IntegerFormat<([0-9]+)>/\1/g; s/^(kernel .*)\([A-Za-z]*Job\)$/\1/' |
  awk -v rules="$rules" -v local_memory_allowed="$local_memory_allowed" '
    function judge(   i, j, n, words, row) {
      if (name == "" || total < 32) return  # a kernel for another target has no body
      ++kernels
      targets[target] = 1
      if (has["LDL"] + has["STL"] && name !~ local_memory_allowed)
        wrong[++faults] = name " for sm_" target ": uses local memory"
      for (i = 1; i <= count; ++i) {
        if (name !~ pattern[i] || target !~ ("^" where[i] "$")) continue
        found[i] = 1
        row = ""
        n = split(must[i], words, " ")
        for (j = 1; j <= n; ++j) {
          row = row (row ? ", " : "") words[j] " " (has[words[j]] + 0)
          if (!has[words[j]]) wrong[++faults] = name " for sm_" target ": no " words[j]
        }
        table[++rows] = "| `" name "` | sm_" target " | " row " |"
      }
    }
    BEGIN {
      count = split(rules, lines, "\n")
      for (i = 1; i <= count; ++i) {
        split(lines[i], words, "|")
        pattern[i] = words[1]
        where[i] = words[2]
        must[i] = words[3]
      }
    }
    $1 == "target" { judge(); name = ""; target = $2 }
    $1 == "kernel" { judge(); name = substr($0, 8); total = 0; delete has }
    # With each of its modifiers, and without.
    $1 == "has" { ++total; do ++has[$2]; while (sub(/\.[^.]*$/, "", $2)) }
    END {
      judge()
      for (i = 1; i <= count; ++i) {
        for (target in targets) {
          if (target !~ ("^" where[i] "$") || found[i]) continue
          wrong[++faults] = "no kernel is called " pattern[i]
          break
        }
      }
      for (i = 1; i <= faults; ++i) print "kernel_instructions.sh: " wrong[i] > "/dev/stderr"
      if (faults) exit 1
      print "| kernel | target | instructions |"
      print "|---|---|---|"
      for (i = 1; i <= rows; ++i) print table[i]
      printf "\n%d kernels, %d of them by the rules above; local memory nowhere else than allowed\n", kernels, rows
    }'
