#!/usr/bin/env bash
# Writes the packages: target/package/phi3-steer-VERSION.tgz for npm, and the .crate beside it, which cargo publish
# would accept.
# Usage: scripts/package.sh   (DIST=FOLDER takes a page that is built already, instead of building it;
#   OFFLINE=1 leaves out asking the crates' index)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

# What bundles import, and what they start; the rest is found from these.
ENTRIES="www/index.js www/worker.js"
TYPES=www/index.d.ts

if [ -z "${DIST:-}" ]; then
  say "building the page"
  trunk build --release --locked
  DIST=dist
fi
[ -f "$DIST/phi3-steer_bg.wasm" ] || die "$DIST holds no built page"

field() { awk -F'"' -v name="$1" '$1 == name " = " { print $2; exit }' Cargo.toml; }
version=$(field version)
out=${CARGO_TARGET_DIR:-target}/package
mkdir -p "$out"
out=$(cd "$out" && pwd)
npm=$out/npm
rm -rf "$npm"
mkdir "$npm"

# needs FILE: what a module imports or finds by its own address, a path a line.
needs() {
  grep -v '@import' "$1" |
    grep -oE "(from |import |import\()[\"']\.[^\"']*[\"']|new URL\([\"'][^\"']*[\"'], import\.meta\.url\)" |
    sed -E "s/^[^\"']*[\"']([^\"']*)[\"'].*/\1/" || true
}

# plain PATH: without . and .. in it.
plain() {
  printf '%s\n' "$1" | awk -F/ '{
    n = 0
    for (i = 1; i <= NF; i++) if ($i == "..") n--; else if ($i != "." && $i != "") parts[++n] = $i
    for (i = 1; i <= n; i++) printf "%s%s", parts[i], i < n ? "/" : "\n"
  }'
}

say "collecting the package's files"
open="$ENTRIES $TYPES"
files=
while [ -n "$open" ]; do
  found=
  for file in $open; do
    case " $files " in *" $file "*) continue ;; esac
    [ -f "$DIST/$file" ] || die "$DIST has no $file, which the package needs"
    files="$files $file"
    case $file in
      *.js | *.d.ts)
        for path in $(needs "$DIST/$file"); do found="$found $(plain "$(dirname "$file")/$path")"; done
        ;;
    esac
  done
  open=$found
done
for file in $files LICENSE LICENSE-MIT LICENSE-APACHE THIRD-PARTY.txt; do
  mkdir -p "$npm/$(dirname "$file")"
  cp "$DIST/$file" "$npm/$file"
done
cp npm/README.md "$npm/"
list=$(cd "$npm" && find . -type f ! -name README.md ! -name LICENSE | sed 's,^\./,,' | LC_ALL=C sort | sed 's/.*/"&"/' | tr '\n' ',' | sed 's/,$//; s/,/, /g')
sed -e "s|@VERSION@|$version|; s|@DESCRIPTION@|$(field description)|; s|@FILES@|$list|" npm/package.json >"$npm/package.json"

say "packing for npm"
npm pack --silent --pack-destination "$out" "$npm" >/dev/null
rm -rf "$npm"
tgz=$out/phi3-steer-$version.tgz
say "$tgz: $(wc -c <"$tgz" | tr -d ' ') bytes"

say "packing for crates.io"
# Not in the project's own build: there the library of the same name would take the place of its own.
build=$out/build
# Compiled to be checked, and run for one answer.
export CARGO_PROFILE_DEV_OPT_LEVEL=0
if [ "${OFFLINE:-}" = 1 ]; then
  cargo package --locked --offline --allow-dirty --target-dir "$build"
else
  cargo publish --dry-run --locked --allow-dirty --target-dir "$build"
  # A trial leaves no file behind.
  cargo package --locked --allow-dirty --no-verify --target-dir "$build"
fi
crate=$out/phi3-steer-$version.crate
mv "$build/package/phi3-steer-$version.crate" "$crate"
say "$crate: $(wc -c <"$crate" | tr -d ' ') bytes"
