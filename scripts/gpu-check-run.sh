#!/usr/bin/env bash
# Checks every kernel on this machine's GPU against its reference, in all variants that the GPU offers, and whole models'
# logits against f64, 2,000 tokens of the nano model's against candle's on the processor; then measures. The report is
# report.txt, the figures are *.json.
#   ADAPTER=cpu   on a software adapter instead
#   QUICK=1       only the tests that run whole models, two figures, and no Phi-3 Mini (2.2 GB in ./phi-3-mini)
set -uo pipefail
cd "$(dirname "$0")"
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$PWD/lib XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
export TEST_ADAPTER=${ADAPTER:-gpu}
cpu=
[ "$TEST_ADAPTER" = gpu ] || cpu=--cpu-adapter
if [ "$TEST_ADAPTER" = gpu ] && [ -z "${VK_DRIVER_FILES:-}" ]; then
  # Drivers that were put into a container have their list of themselves in other places.
  for list in /etc/vulkan/icd.d/nvidia_icd.json /usr/share/vulkan/icd.d/nvidia_icd.json /usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json; do
    [ ! -f "$list" ] || { export VK_DRIVER_FILES=$list && break; }
  done
fi
tests=() figures=()
[ -z "${QUICK:-}" ] || tests=(known_answers greedy) figures=(--context 16 --lanes 1 --tokens 4)
failed=0
{
  echo "phi3-steer $(cat VERSION), $(uname -srm), $(date -u +%FT%TZ)"
  echo "== kernels and logits against their references"
  ./gpu-tests "${tests[@]}" || failed=1
  echo "== nano model"
  ./phi3-steer bench $cpu --model models/nano --sae models/nano/sae "${figures[@]}" --json nano.json || failed=1
  if [ -z "${QUICK:-}" ]; then
    echo "== Phi-3 Mini, random weights"
    [ -d phi-3-mini ] || ./phi3-steer synth --like phi-3-mini --format planes --out phi-3-mini >/dev/null || failed=1
    ./phi3-steer bench $cpu --model phi-3-mini --tokens 128 --patience 10 --json phi-3-mini.json || failed=1
  fi
  [ $failed = 0 ] && echo "== all of it worked" || echo "== something failed: see above"
} 2>&1 | tee report.txt
grep -q "all of it worked" report.txt
