#!/bin/bash
# Checks the CUDA backend on a machine with a GPU and writes what it found into a folder:
#   tools/gpu_check.sh OUT [DIR]          DIR: a packed build; without it the tree is built first, into build-gpu
#   tools/gpu_check.sh --pack BUILD DIR   makes such a DIR from a build folder: programs and the libraries they need
# OUT gets summary.json, bench-*.json and a log for each step. Ends within 8 minutes: steps that no longer fit are listed
# as skipped. Exit code 1 when a step failed.
set -euo pipefail

tests=(instructions_device_test device_layout_device_test linear_kernels_device_test table_layout_device_test
  table_linear_device_test float_linear_device_test attention_device_test cuda_ops_device_test cuda_backend_device_test
  best_tokens_device_test split_cuda_device_test recording_device_test device_limits_device_test
  row_kernels_device_test)

if [ "${1:-}" = --pack ]; then
  [ $# -eq 3 ] || { echo "usage: tools/gpu_check.sh --pack BUILD DIR" >&2; exit 2; }
  mkdir -p "$3/lib"
  for program in tessera "${tests[@]}"; do
    strip -o "$3/$program" "$2/$program"
    # Everything but the C library itself, which belongs to the machine.
    ldd "$2/$program" | awk '$3 ~ /^\// { print $3 }' | grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' |
      xargs -r cp -n -L -t "$3/lib"
  done
  exit 0
fi
[ $# -ge 1 ] && [ $# -le 2 ] || { echo "usage: tools/gpu_check.sh OUT [DIR]" >&2; exit 2; }

mkdir -p "$1"
out=$(cd "$1" && pwd)
programs=${2:+$(cd "$2" && pwd)}
cd "$(dirname "$0")/.."
seconds_allowed=${GPU_CHECK_SECONDS:-460}
steps=""
failed=0

# step NAME LIMIT COMMAND...: runs it with a log, at most LIMIT seconds and within the time that is left.
step() {
  local name=$1 limit=$2 left=$((seconds_allowed - SECONDS)) begun=$SECONDS result=passed
  shift 2
  if [ "$left" -lt 5 ]; then
    result=skipped
  elif ! timeout $((limit < left ? limit : left)) bash -c '"$@"' "$name" "$@" >"$out/$name.log" 2>&1; then
    result=failed
    # Cut short because no time was left, not because it took too long.
    if [ "$left" -lt "$limit" ] && [ $((SECONDS - begun)) -ge "$left" ]; then result=skipped; else failed=1; fi
  elif grep -q '^skipped: ' "$out/$name.log"; then
    result=failed # a device test that found no device has tested nothing
    failed=1
  fi
  echo "$name: $result, $((SECONDS - begun)) s"
  steps+="${steps:+, }{\"name\": \"$name\", \"result\": \"$result\", \"seconds\": $((SECONDS - begun))}"
}

build() {
  local target=native
  # wgmma is not in what "native" means on a Hopper GPU.
  [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)" = 9.0 ] && target=90a-real
  cmake -S . -B build-gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DTESSERA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$target &&
    cmake --build build-gpu --target "$@"
}

# The likeliest answer on the CPU and where the flags say: the same text.
same_answer() {
  local ask=(-p "Find me a hotel in Berlin." --raw --temp 0 --max-tokens 48 --no-stats) cpu cuda
  cpu=$("$programs/tessera" "${ask[@]}" </dev/null) && cuda=$("$programs/tessera" "${ask[@]}" "$@" </dev/null) || return 1
  printf 'cpu:  %s\ncuda: %s\n' "$cpu" "$cuda"
  [ "$cpu" = "$cuda" ]
}

bench() {
  local name=$1
  shift
  "$programs/tessera" --bench --backend cuda --output json "$@" >"$out/bench-$name.json"
}

export -f build same_answer bench # timeout runs them in a shell of their own
export out programs
if [ -z "$programs" ]; then
  step build 300 build tessera "${tests[@]}"
  programs=$PWD/build-gpu
else
  export LD_LIBRARY_PATH="$programs/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
step devices 30 "$programs/tessera" --list-devices
for test in "${tests[@]}"; do step "$test" 90 "$programs/$test"; done
# Where it is installed but cannot attach to the device, as in some containers, there is nothing to learn from it.
if sanitizer=$(command -v compute-sanitizer) &&
  "$sanitizer" --error-exitcode 1 "$programs/tessera" --list-devices >"$out/sanitizer.log" 2>&1; then
  for tool in memcheck racecheck; do
    step "$tool" 90 "$sanitizer" --tool "$tool" --error-exitcode 1 "$programs/cuda_backend_device_test"
  done
else
  echo "memcheck, racecheck: skipped, there is no sanitizer that can attach to the device"
fi
step answer-embedded 60 same_answer --backend cuda
step answer-split 60 same_answer -ngl 3
step bench-embedded 60 bench embedded --tests pp128,tg128
step bench-llama-3-8b 150 bench llama-3-8b --shape llama-3-8b \
  --tests pp512,tg64,tg64@d4096,attn@d7936,batch16,batch64,batch256,mm1,mm4,mm16,mm64,mm256 --repetitions 2
for kv in 4 16; do step "bench-attention-kv$kv" 45 bench attention-kv$kv --shape llama-3.1-8b --tests attn@d32768 --kv $kv; done
for scheme in lut4-g128-a8 lut4-g128; do
  step "bench-$scheme" 60 bench $scheme --shape llama-3-8b --scheme $scheme --tests mm1,mm4,mm16,mm64,mm256 --repetitions 2
done

device=$("$programs/tessera" --list-devices | grep '^cuda: ' | head -n 1 | sed 's/\\/\\\\/g; s/"/\\"/g')
printf '{"device": "%s", "seconds": %d, "steps": [%s]}\n' "${device#cuda: }" "$SECONDS" "$steps" >"$out/summary.json"
cat "$out/summary.json"
exit $failed
