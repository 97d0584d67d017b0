#!/usr/bin/env bash
# Puts the built page and chosen models into one folder that any static server serves without a network.
# Usage: scripts/classroom.sh OUT [MODEL...]
#   A MODEL is a folder (own format, safetensors, or a dictionary) or a single .gguf or .npz file.
#   A file listing.txt in the folder, or FILE.txt beside a single file, says how it is listed: its first
#   line is the title, "For: FAMILY" names models that a dictionary is for, the rest is a note for the class.
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

say "copying the page to $out"
mkdir -p "$out"
cp -R "$DIST"/. "$out"/

scripts/add-models.sh "$out" "$@"

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
