#!/usr/bin/env bash
# Puts models beside a built page, with their hashes, and into its catalogue, where they come first.
# Usage: scripts/add-models.sh FOLDER [MODEL...]   (FOLDER holds the page; MODEL as for scripts/classroom.sh)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

out=${1:?usage: scripts/add-models.sh FOLDER [MODEL...]}
shift
[ $# -gt 0 ] || exit 0

hash() { if have sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
bytes() { wc -c <"$1" | tr -d ' '; }
# A string of JSON: names of files hold no control characters worth keeping.
json() { printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&"/'; }
# A path as it stands in an address.
address() { printf '%s' "$1" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g; s/?/%3F/g'; }

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
  local size title note more family
  title=$3 more=
  note="Put here by whoever made this folder."
  if [ -f "$5" ]; then
    title=$(head -n 1 "$5" | cut -c 1-120)
    note=$(tail -n +2 "$5" | sed '/^For: /d' | tr '\n' ' ' | cut -c 1-300 | sed 's/^ *//; s/ *$//')
    family=$(sed -n 's/^For: *//p' "$5" | head -n 1)
    [ -z "$family" ] || more=",\"families\":[$(json "$family")]"
  fi
  [ ! -f "$2/find.json" ] || more="$more,\"found\":true"
  size=$(find "$2" -type f -exec wc -c {} + | awk '$2 != "total" { sum += $1 } END { printf "%d", sum }')
  printf '{"id":%s,"name":%s,"url":%s,"bytes":%s,"beside":true,"about":%s%s}' \
    "$(json "beside $4")" "$(json "${title:-$3}")" "$(json "$4")" "$size" "$(json "${note:-Put here by whoever made this folder.}")" "$more"
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
' "$out/www/catalogue.json" >"$out/catalogue.part"
mv "$out/catalogue.part" "$out/www/catalogue.json"

