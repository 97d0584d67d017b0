#!/usr/bin/env bash
# Builds one folder that checks and measures the engine on another Linux machine of this processor, with a GPU and its
# driver and nothing else: copy it there and run check.sh in it.
# Usage: scripts/gpu-check.sh [OUT]
#   PROFILE=dev   with what the tests have built, which is quick to make and slow to run
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

out=${1:-target/gpu-check}
target=${CARGO_TARGET_DIR:-target}
profile=${PROFILE:-tool}
made=$target/$profile
how=(--locked --profile "$profile")
[ "$profile" != dev ] || made=$target/debug how+=(--all-features)
say "building"
# With the command, as every test outside of the library.
tests=$(cargo test "${how[@]}" --no-run --test gpu 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
[ -x "$tests" ] || die "the tests were not built"
rm -rf "$out"
mkdir -p "$out/lib" "$out/models"
cp "$made/phi3-steer" "$out/"
cp "$tests" "$out/gpu-tests"
strip "$out/phi3-steer" "$out/gpu-tests"
cp -R models/nano "$out/models/"
cp scripts/gpu-check-run.sh "$out/check.sh"
# The Vulkan loader, for machines that have a driver alone.
loader=$(ldconfig -p 2>/dev/null | sed -n 's/.*libvulkan\.so\.1 .*x86-64.* => //p' | head -n 1)
[ -z "$loader" ] || cp -L "$loader" "$out/lib/libvulkan.so.1"
git describe --always --dirty >"$out/VERSION" 2>/dev/null || echo unknown >"$out/VERSION"
say "$out holds $(du -sm "$out" | cut -f1) MB: copy it to the machine with the GPU and run ./check.sh there"
