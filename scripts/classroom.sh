#!/usr/bin/env bash
# Puts the built page and chosen models into one folder that any static server serves without a network.
# Usage: scripts/classroom.sh OUT [MODEL...]
#   A MODEL is a folder (own format, safetensors, or a dictionary) or a single .gguf or .npz file.
#   A file listing.txt in the folder, or FILE.txt beside a single file, says how it is listed: its first
#   line is the title, the rest a note for the class.
#   DIST=FOLDER takes a page that is built already, instead of building it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

out=${1:?usage: scripts/classroom.sh OUT [MODEL...]}
shift
for model in "$@"; do
  [ -e "$model" ] || die "there is no $model"
done
[ ! -e "$out" ] || [ -f "$out/sw.js" ] || die "$out is there already and is no classroom folder: choose another with OUT=..."

if [ -z "${DIST:-}" ]; then
  say "building the page"
  trunk build --release --locked
  DIST=dist
fi
[ -f "$DIST/phi3-steer_bg.wasm" ] || die "$DIST holds no built page"

hash() { if have sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
bytes() { wc -c <"$1" | tr -d ' '; }
# A string of JSON: names of files hold no control characters worth keeping.
json() { printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&"/'; }
# A path as it stands in an address.
address() { printf '%s' "$1" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/?/%3F/g'; }

say "copying the page to $out"
mkdir -p "$out"
cp -R "$DIST"/. "$out"/

# manifest FOLDER: sizes and hashes of its files, unless it has them; the page checks what it stores.
manifest() {
  [ ! -f "$1/manifest.json" ] || return 0
  say "hashing $1"
  (
    cd "$1"
    find . -type f ! -name '.*' ! -name manifest.json | LC_ALL=C sort | {
      separator=
      printf '{"format":"phi3-steer-files-1","files":['
      while IFS= read -r file; do
        printf '%s\n{"name":%s,"bytes":%s,"sha256":"%s"}' "$separator" "$(json "${file#./}")" "$(bytes "$file")" "$(hash <"$file" | cut -d' ' -f1)"
        separator=,
      done
      printf '\n]}\n'
    }
  ) >"$out/manifest.part"
  # Not written in the folder itself, whose list it is.
  mv "$out/manifest.part" "$1/manifest.json"
}

models= dictionaries=
# entry KIND FOLDER NAME ADDRESS LISTING: a line of the catalogue.
entry() {
  local size title note
  title=$3
  note="Put here by whoever made this folder."
  if [ -f "$5" ]; then
    title=$(head -n 1 "$5" | cut -c 1-120)
    note=$(tail -n +2 "$5" | tr '\n' ' ' | cut -c 1-300 | sed 's/^ *//; s/ *$//')
  fi
  size=$(find "$2" -type f -exec wc -c {} + | awk '$2 != "total" { sum += $1 } END { printf "%d", sum }')
  printf '{"id":%s,"name":%s,"url":%s,"bytes":%s,"beside":true,"about":%s}' \
    "$(json "beside $4")" "$(json "${title:-$3}")" "$(json "$4")" "$size" "$(json "${note:-Put here by whoever made this folder.}")"
}

for model in "$@"; do
  name=$(basename "$model")
  say "copying $name"
  if [ -d "$model" ]; then
    target=$out/models/$name
    [ "$name" != nano ] || target=$out/models/nano-copy
    mkdir -p "$target"
    cp -R "$model"/. "$target"/
    at="./models/$(address "$(basename "$target")")/"
  else
    # A folder around the file, so that it can have a manifest.
    target=$out/models/${name%.*}
    mkdir -p "$target"
    cp "$model" "$target"/
    at="./models/$(address "${name%.*}")/$(address "$name")"
  fi
  listing=$model.txt
  [ ! -d "$model" ] || listing=$model/listing.txt
  manifest "$target"
  if [ -f "$target/config.json" ] && [ -f "$target/tokenizer.json" ] || compgen -G "$target/*.gguf" >/dev/null; then
    models="$models$(entry model "$target" "$name" "$at" "$listing"),"
  elif [ -f "$target/cfg.json" ] || [ -f "$target/hyperparams.json" ] || compgen -G "$target/*.npz" >/dev/null || compgen -G "$target/*.safetensors" >/dev/null; then
    dictionaries="$dictionaries$(entry dictionary "$target" "$name" "$at" "$listing"),"
  else
    die "$model is neither a model (config.json and tokenizer.json, or a .gguf file) nor a dictionary (cfg.json with its weights, or an .npz file)"
  fi
done

# Their lines come first in the lists of the catalogue.
MODELS=$models DICTIONARIES=$dictionaries awk '
  { print }
  /"models": \[/ { print ENVIRON["MODELS"] }
  /"dictionaries": \[/ { print ENVIRON["DICTIONARIES"] }
' "$DIST/www/catalogue.json" >"$out/www/catalogue.json"

cat >"$out/README.txt" <<'TEXT'
phi3-steer, ready for a classroom without a network.

Serve this folder from any static web server and open its address in a browser with WebGPU
(Chrome, Edge, Safari 26, Firefox 141 on Windows). With Python, on each machine:

    python3 -m http.server 8000

then open http://localhost:8000/ on that machine. Python's server has no range requests: downloads
into the browser then come in one piece and start over after a break. Caddy, nginx and most others
have them.

One server for the whole room: browsers offer WebGPU only to pages served over https or from
localhost. Plain http://SERVER/ will not do; give the server a certificate that the room's machines
trust, or put this folder on every machine.

The models in this folder are listed first under "Other model...". Each machine that loads one keeps
it, checked by its hash, and opens it from its own disk from then on. Nothing that is typed leaves the
browser.

To copy the folder to a USB stick, format the stick as exFAT: FAT32 holds no file over 4 GB.
TEXT

# The service worker knows every file of the page; the models stay out of it.
scripts/precache.sh "$out"
say "$out is ready: $(du -sh "$out" | cut -f1)"
