# Sourced by the other scripts: versions, paths, messages. Works in bash 3.2 (macOS) and later.

TRUNK_VERSION=0.21.14
WASM_PACK_VERSION=0.15.1
GECKODRIVER_VERSION=0.37.1
CARGO_FUZZ_VERSION=0.13.2
TYPESCRIPT_VERSION=7.0.2
VITE_VERSION=8.3.8
# wasm-bindgen's command and its library must be the same version: the lock file decides.
WASM_BINDGEN_VERSION=$(awk '$0 == "name = \"wasm-bindgen\"" { getline; gsub(/[^0-9.]/, ""); print; exit }' Cargo.lock)

# Tools that are missing are built once into one folder a version, for all clones of the project.
TOOLS=${PHI3_STEER_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/phi3-steer/tools}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the version of an installed command, or nothing.
version_of() { "$1" --version 2>/dev/null | awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i ~ /^v?[0-9]+\.[0-9]+/) { sub(/^v/, "", $i); print $i; exit } }'; }

PATH=$HOME/.cargo/bin:$PATH
for tool in "trunk-$TRUNK_VERSION" "wasm-pack-$WASM_PACK_VERSION" \
  "wasm-bindgen-cli-$WASM_BINDGEN_VERSION" "geckodriver-$GECKODRIVER_VERSION" \
  "cargo-fuzz-$CARGO_FUZZ_VERSION"; do
  [ -d "$TOOLS/$tool/bin" ] && PATH=$TOOLS/$tool/bin:$PATH
done
export PATH

# Debian calls it chromium, others chromium-browser; Chrome will do as well.
find_chrome() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    have "$name" && command -v "$name" && return
  done
  for name in "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" \
    "/Applications/Chromium.app/Contents/MacOS/Chromium"; do
    [ -x "$name" ] && printf '%s\n' "$name" && return
  done
  return 1
}

find_firefox() {
  local name
  for name in firefox firefox-esr /Applications/Firefox.app/Contents/MacOS/firefox; do
    have "$name" && command -v "$name" && return
  done
  return 1
}

# Where there is no GPU the tests run on Mesa's software adapter.
use_software_adapter_without_gpu() {
  [ "$(uname)" = Linux ] || return 0
  [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
  local node icd
  for node in /dev/dri/renderD* /dev/nvidiactl; do
    [ -e "$node" ] && return 0
  done
  for icd in /usr/share/vulkan/icd.d/lvp_icd*.json; do
    if [ -e "$icd" ]; then
      export VK_DRIVER_FILES=$icd VK_ICD_FILENAMES=$icd
      say "no GPU here: using Mesa's software adapter ($icd)"
      return 0
    fi
  done
}
