#!/usr/bin/env bash
# Prints how fast models run on this machine, and writes the figures to target/bench/*.json: the nano model,
# SmolLM2-135M-Instruct where it is there (make small-model), and, where there is a GPU, Phi-3 Mini at full size with
# random weights (2.2 GB in target/bench).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
use_software_adapter_without_gpu

cargo build --locked --profile tool --bin phi3-steer
run=${CARGO_TARGET_DIR:-target}/tool/phi3-steer
mkdir -p target/bench

say "the nano model"
"$run" bench --model models/nano --sae models/nano/sae --json target/bench/nano.json
small=models/smollm2-135m-instruct
if compgen -G "$small/*.gguf" >/dev/null; then
  say "SmolLM2-135M-Instruct"
  "$run" bench --model $small --context 16,512 --tokens 16 --json target/bench/smollm2.json
fi
if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
  say "no GPU: Phi-3 Mini's full size is left out (make full-size has it on a software adapter)"
  exit 0
fi
say "Phi-3 Mini, random weights"
[ -d target/bench/phi-3-mini ] || "$run" synth --like phi-3-mini --format planes --out target/bench/phi-3-mini
"$run" bench --model target/bench/phi-3-mini --tokens 128 --json target/bench/phi-3-mini.json
