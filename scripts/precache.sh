#!/usr/bin/env bash
# Writes sw.js, the service worker, for a built page: the list of its files with their hashes, then
# www/offline-worker.js. Models other than the nano model are not on the list.
# Usage: scripts/precache.sh FOLDER   (a build by trunk calls it with the folder in TRUNK_STAGING_DIR)
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
cd "${1:-${TRUNK_STAGING_DIR:?the folder of the built page}}"

# macOS has no sha256sum.
hash() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

list=$(find . -type f ! -path ./sw.js ! -path ./README.txt \( ! -path './models/*' -o -path './models/nano/*' \) |
  LC_ALL=C sort | while IFS= read -r file; do
  printf '  ["%s", "%s"],\n' "${file#./}" "$(hash <"$file" | cut -d' ' -f1)"
done)
build=$(printf '%s' "$list" | hash | cut -c1-16)
{
  printf 'const BUILD = "%s";\nconst FILES = [\n%s\n];\n\n' "$build" "$list"
  cat "$source/www/offline-worker.js"
} >sw.js
