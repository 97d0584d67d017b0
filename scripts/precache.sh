#!/usr/bin/env bash
# Writes sw.js, the service worker, for a built page: the list of its files with their hashes, then
# www/offline-worker.js. Models other than the nano model are not on the list.
# Usage: scripts/precache.sh FOLDER   (a build by trunk calls it with the folder in TRUNK_STAGING_DIR)
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
cd "${1:-${TRUNK_STAGING_DIR:?the folder of the built page}}"

# macOS has no sha256sum.
hash() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# What the page does not read by itself comes over the network when somebody asks for it.
aside() { case $1 in LICENSE* | THIRD-PARTY.txt | models/nano/eval.json | sets/*.json | www/index.js | *.d.ts | */tsconfig.json | */package.json | sw.js | README.txt) true ;; *) false ;; esac }

files=$(find . -type f \( ! -path './models/*' -o -path './models/nano/*' \) | sed 's,^\./,,' | LC_ALL=C sort)
list=$(printf '%s\n' "$files" | while IFS= read -r file; do
  aside "$file" || printf '  ["%s", "%s", %d],\n' "$file" "$(hash <"$file" | cut -d' ' -f1)" "$(wc -c <"$file")"
done)
left=$(printf '%s\n' "$files" | while IFS= read -r file; do
  ! aside "$file" || printf '"%s", ' "$file"
done)
build=$(printf '%s' "$list" | hash | cut -c1-16)
{
  # The first line tells builds apart.
  printf 'const BUILD = "%s";\nconst FILES = [\n%s\n];\nconst ASIDE = [%s];\n\n' "$build" "$list" "$left"
  cat "$source/www/offline-worker.js"
} >sw.js
