#!/usr/bin/env bash
# Runs the tests: scripts/test.sh [types] [native] [page] [package] [chromium] [firefox]   (default: all)
#   types     the page's JavaScript: types and unit tests
#   native    Rust tests on this machine's GPU or on a software adapter
#   page      the built page, driven through WebDriver
#   package   the packages for npm and crates.io, installed from their packed files
#   chromium  tests/web_*.rs in headless Chromium
#   firefox   FIREFOX_TESTS, and what of the page FIREFOX_PAGE names, in headless Firefox; WITHOUT_FIREFOX=1
#             leaves them out
# Not among all, since it takes long:
#   full-size a model of Phi-3 Mini's size, from files to an answer, natively and in Chromium
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

# Small sets: Firefox is the second WebGPU, but each readback takes it 100 ms.
FIREFOX_TESTS="web_smoke"
# To open, chat as the native engine does, steer, stop, reload; a model from an address and from files; the
# lab, and training; without a network.
FIREFOX_PAGE="built_page_shows_base_and_steered built_page_stops built_page_reloads
  built_page_stops_training built_page_keeps_and_deletes_a_model built_page_takes_a_dropped_folder built_page_compares_strengths
  built_page_opens_and_chats_offline"

test_types() {
  say "the page's JavaScript: types, then unit tests"
  npx --yes --prefer-offline --package "typescript@$TYPESCRIPT_VERSION" -- tsc -p www
  # A page of somebody's own, with what ships.
  local own
  own=$(mktemp -d)
  mkdir -p "$own/phi3-steer/src/web"
  cp -R www "$own/phi3-steer/"
  cp src/web/types.d.ts "$own/phi3-steer/src/web/"
  cp types/*.d.ts "$own/phi3-steer/www/"
  cp tests/www/types/*.ts "$own/"
  npx --yes --prefer-offline --package "typescript@$TYPESCRIPT_VERSION" -- tsc --noEmit --strict --target es2022 \
    --module es2022 --moduleResolution bundler --lib es2023,dom,dom.asynciterable --types "" "$own"/*.ts
  rm -rf "$own"
  node --test tests/www/*.test.mjs
}

# The page's tests are part of the same build; they run later, with the page.
test_native() {
  say "native tests"
  use_software_adapter_without_gpu
  # Without a network for it, OFFLINE=1 leaves out what needs the real model.
  [ "${OFFLINE:-}" = 1 ] || scripts/small-model.sh
  cargo test --locked --all-features -- --skip built_page_
  say "the folder that make gpu-check makes, on the software adapter"
  local folder
  folder=$(mktemp -d)
  PROFILE=dev scripts/gpu-check.sh "$folder/gpu-check"
  (cd / && ADAPTER=cpu QUICK=1 "$folder/gpu-check/check.sh")
  rm -rf "$folder"
}

# Builds the page, once a run.
page_built=
build_page() {
  [ -z "$page_built" ] || return 0
  say "building the page"
  trunk build --release --locked
  page_built=1
}

test_page() {
  build_page
  say "tests of the built page"
  use_software_adapter_without_gpu
  CHROME=$(find_chrome) cargo test --locked --all-features --test page
}

test_package() {
  build_page
  say "packing"
  DIST=dist scripts/package.sh
  say "tests of the packages"
  use_software_adapter_without_gpu
  export VITE_VERSION TYPESCRIPT_VERSION
  local skip=
  # Vite comes from a network.
  [ "${OFFLINE:-}" != 1 ] || skip="--skip _vite"
  # shellcheck disable=SC2086
  CHROME=$(find_chrome) cargo test --locked --all-features --test page -- --ignored package_ $skip
}

test_full_size() {
  build_page
  say "a full-size model"
  use_software_adapter_without_gpu
  CHROME=$(find_chrome) cargo test --locked --all-features --test page -- --ignored --nocapture full_size_
}

# Browser tests that would be skipped without a word, and native tests that would break the build.
check_web_tests() {
  local file
  for file in tests/*.rs tests/*/main.rs; do
    [ -e "$file" ] || continue
    case $file in
      tests/web_*)
        grep -q 'wasm_bindgen_test_configure!(run_in_' "$file" ||
          die "$file has no wasm_bindgen_test_configure!(run_in_...): browsers would skip it"
        grep -q '^#!\[cfg(target_arch = "wasm32")\]' "$file" ||
          die "$file must begin with #![cfg(target_arch = \"wasm32\")]"
        ;;
      *)
        grep -q '^#!\[cfg(not(target_arch = "wasm32"))\]' "$file" ||
          die "$file must begin with #![cfg(not(target_arch = \"wasm32\"))]: wasm-pack compiles every test"
        ;;
    esac
  done
}

# web_tests BROWSER TEST...: runs them, and fails if a test file ran nothing.
web_tests() {
  local browser=$1 log ran want name args=()
  shift
  for name in "$@"; do args+=(--test "$name"); done
  log=$(mktemp)
  wasm-pack test --mode no-install --headless "--$browser" . \
    --locked --no-default-features "${args[@]}" 2>&1 | tee "$log"
  ! grep -q 'only configured to run in node.js' "$log" || die "a test file ran in no browser"
  ran=$(grep -cE '^test result: ok\. [1-9][0-9]* passed' "$log" || true)
  want=$#
  rm -f "$log"
  [ "$ran" -eq "$want" ] || die "$want files of browser tests, but only $ran ran tests"
}

test_chromium() {
  say "tests in headless Chromium"
  check_web_tests
  local names=() file
  for file in tests/web_*.rs; do
    [ -e "$file" ] || die "there is no tests/web_*.rs"
    names+=("$(basename "$file" .rs)")
  done
  CHROMEDRIVER=$(command -v chromedriver) web_tests chrome "${names[@]}"
}

test_firefox() {
  if [ "${WITHOUT_FIREFOX:-}" = 1 ]; then
    say "WITHOUT_FIREFOX=1: tests in Firefox are left out"
    return
  fi
  local firefox
  firefox=$(find_firefox) || die "Firefox is missing: install it, or leave its tests out with WITHOUT_FIREFOX=1"
  say "tests in headless Firefox"
  use_software_adapter_without_gpu
  check_web_tests
  # shellcheck disable=SC2086
  GECKODRIVER=$(command -v geckodriver) web_tests firefox $FIREFOX_TESTS
  build_page
  say "the page in headless Firefox"
  local log
  log=$(mktemp)
  # shellcheck disable=SC2086
  set -- $FIREFOX_PAGE
  PAGE_BROWSER=firefox FIREFOX=$firefox cargo test --locked --all-features --test page -- "$@" 2>&1 | tee "$log"
  grep -qE "^test result: ok\. $# passed" "$log" || die "not all of FIREFOX_PAGE ran: $#"
  rm -f "$log"
}

started=$SECONDS
[ $# -gt 0 ] || set -- types native page package chromium firefox
for part in "$@"; do
  case $part in
    types | native | page | package | chromium | firefox) "test_$part" ;;
    full-size) test_full_size ;;
    *) die "unknown part '$part': types native page package chromium firefox full-size" ;;
  esac
  say "$part: passed, $((SECONDS - started)) s since the start"
done
[ "${OFFLINE:-}" != 1 ] || [ -f models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf ] ||
  say "OFFLINE=1: the tests of the real small model (SmolLM2-135M-Instruct) were left out"
[ "${OFFLINE:-}" != 1 ] || say "OFFLINE=1: the package in a bundle by Vite was left out"
[ "${WITHOUT_FIREFOX:-}" != 1 ] || say "WITHOUT_FIREFOX=1: the tests in Firefox were left out"
