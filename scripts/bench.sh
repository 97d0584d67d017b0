#!/usr/bin/env bash
# Prints the speed of the nano model on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
use_software_adapter_without_gpu
cargo bench --locked --profile tool --bench decode
