#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks; quick when all is there.
# Usage: scripts/setup.sh PART...   with the parts rust lint site vulkan browser node firefox fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

APT_UPDATED=
apt_install() {
  local root=
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || die "these packages are missing and there is no sudo to install them: $*"
    root=sudo
  fi
  say "installing with apt-get: $*"
  if [ -z "$APT_UPDATED" ]; then
    $root apt-get update -q
    APT_UPDATED=1
  fi
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

# system WHAT "APT PACKAGES" "BREW ARGUMENTS": installs with the system's package manager.
system() {
  if have apt-get && [ -n "$2" ]; then
    # shellcheck disable=SC2086
    apt_install $2
  elif have brew && [ -n "$3" ]; then
    say "installing with brew: $3"
    # shellcheck disable=SC2086
    brew install $3
  else
    die "$1 is missing, and this machine has no package manager that this script knows how to ask: please install it"
  fi
}

# crate NAME VERSION COMMAND [ARGUMENT...]: builds a tool unless the right version is on the PATH.
crate() {
  [ "$(version_of "$3")" = "$2" ] && return
  local more=("${@:4}")
  say "building $1 $2 into $TOOLS (once; some minutes)"
  # Quick to build rather than quick to run; the project's own cargo settings do not apply.
  (
    cd /
    CARGO_TARGET_DIR=$TOOLS/build \
      CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
      CARGO_PROFILE_RELEASE_OPT_LEVEL=${TOOL_OPT_LEVEL:-1} CARGO_PROFILE_RELEASE_STRIP=debuginfo \
      cargo install --quiet ${more[@]+"${more[@]}"} --root "$TOOLS/$1-$2" --version "$2" "$1"
  )
  PATH=$TOOLS/$1-$2/bin:$PATH
  [ "$(version_of "$3")" = "$2" ] || die "$1 $2 was built, but $3 on the PATH is version '$(version_of "$3")'"
  rm -rf "$TOOLS/build"
}

part_rust() {
  have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
  local need have_version
  need=$(awk -F'"' '/^rust-version/ { print $2; exit }' Cargo.toml)
  have_version=$(version_of rustc)
  [ "$(printf '%s\n%s\n' "$need" "$have_version" | sort -V | head -n 1)" = "$need" ] ||
    die "Rust $need or newer is needed, this is $have_version: run 'rustup update stable'"
  have cc || system "a C compiler" build-essential ""
}

wasm_target() {
  [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ] && return
  have rustup || die "the target wasm32-unknown-unknown is missing, and there is no rustup to add it"
  say "adding Rust's wasm32-unknown-unknown target"
  rustup target add wasm32-unknown-unknown
}

part_lint() {
  local part
  for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 && continue
    have rustup || die "cargo $part is missing, and there is no rustup to add it"
    say "adding cargo $part"
    rustup component add "$([ "$part" = fmt ] && echo rustfmt || echo clippy)"
  done
}

# What builds the page: wasm target, wasm-bindgen of the lock file's version, trunk.
part_site() {
  [ -n "$WASM_BINDGEN_VERSION" ] || die "Cargo.lock does not name a version of wasm-bindgen"
  wasm_target
  # Not --locked: a dependency that its lock file names has been withdrawn.
  crate wasm-bindgen-cli "$WASM_BINDGEN_VERSION" wasm-bindgen --no-default-features
  # trunk is told to stay offline, so that it downloads no tools, and needs no TLS; the crates must be here.
  TOOL_OPT_LEVEL=0 crate trunk "$TRUNK_VERSION" trunk --locked --no-default-features
  cargo fetch --quiet --locked
}

# A software Vulkan adapter, for machines without a GPU.
part_vulkan() {
  [ "$(uname)" = Linux ] || return 0
  local missing=()
  ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' || /sbin/ldconfig -p | grep -q 'libvulkan\.so\.1' || missing+=(libvulkan1)
  compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' >/dev/null || missing+=(mesa-vulkan-drivers)
  [ ${#missing[@]} -eq 0 ] || system "a Vulkan loader with Mesa's software driver" "${missing[*]}" ""
}

# What runs tests in a browser: Chromium, its driver, wasm-pack.
part_browser() {
  find_chrome >/dev/null || system "Chromium" chromium "--cask google-chrome"
  have chromedriver || system "chromedriver" chromium-driver "--cask chromedriver"
  crate wasm-pack "$WASM_PACK_VERSION" wasm-pack --locked
}

# What checks the page's types.
part_node() {
  have npx || system "Node.js with npm" "nodejs npm" node
}

# Firefox, the second browser, and its driver. WITHOUT_FIREFOX=1 does without.
part_firefox() {
  [ "${WITHOUT_FIREFOX:-}" != 1 ] || return 0
  find_firefox >/dev/null || system "Firefox (WITHOUT_FIREFOX=1 does without)" firefox-esr "--cask firefox"
  crate geckodriver "$GECKODRIVER_VERSION" geckodriver --locked
}

# What fuzzes: nightly Rust and cargo-fuzz.
part_fuzz() {
  if ! rustc +nightly --version >/dev/null 2>&1; then
    have rustup || die "nightly Rust is missing, and there is no rustup to add it"
    say "adding nightly Rust"
    rustup toolchain install nightly --profile minimal
  fi
  crate cargo-fuzz "$CARGO_FUZZ_VERSION" cargo-fuzz --locked
}

[ $# -gt 0 ] || die "usage: scripts/setup.sh PART... (rust lint site vulkan browser node firefox fuzz)"
for part in "$@"; do
  case $part in
    rust | lint | site | vulkan | browser | node | firefox | fuzz) "part_$part" ;;
    *) die "unknown part '$part'" ;;
  esac
done
