#!/usr/bin/env bash
# Fuzzes the readers of files, one after the other: scripts/fuzz.sh [TARGET]...   (default: all)
# SECONDS_EACH is the time for each (600). What is found is in fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

seconds=${SECONDS_EACH:-600}
if [ $# -eq 0 ]; then
  # shellcheck disable=SC2046
  set -- $(basename -a -s .rs fuzz/fuzz_targets/*.rs)
fi
for target in "$@"; do
  say "fuzzing $target for $seconds s"
  # New inputs go to a folder of their own; the committed corpus is where they start from.
  mkdir -p "fuzz/target/corpus/$target"
  # Without a sanitizer: safe Rust has no use for it, and runs twice as fast.
  cargo +nightly fuzz run --sanitizer none "$target" \
    "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536
done
