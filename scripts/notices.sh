#!/usr/bin/env bash
# Puts the project's licence and the notices of what is compiled into the wasm into a built page:
# LICENSE*, THIRD-PARTY.txt. Fails if a crate has no licence, or none that is known to allow this.
# Usage: scripts/notices.sh FOLDER   (a build by trunk calls it with the folder in TRUNK_STAGING_DIR)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

out=${1:-${TRUNK_STAGING_DIR:?the folder of the built page}}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The first of these that a crate offers is taken.
CHOICES="MIT Apache-2.0 Zlib BSD-2-Clause BSD-3-Clause ISC BSL-1.0 0BSD Unlicense CC0-1.0"

web="--locked --offline --no-default-features"
# shellcheck disable=SC2086
crates=$(cargo tree $web --target wasm32-unknown-unknown --edges normal,no-proc-macro --prefix none \
  --format '{p}|{l}|{r}' | sed 's/ (\*)$//' | LC_ALL=C sort -u)
# shellcheck disable=SC2086
folders=$(cargo metadata $web --format-version 1 --filter-platform wasm32-unknown-unknown |
  grep -o '"manifest_path":"[^"]*"' | cut -d'"' -f4)

# folder_of NAME VERSION: where the crate's sources are.
folder_of() {
  printf '%s\n' "$folders" | while IFS= read -r manifest; do
    case $manifest in
      */"$1-$2"/Cargo.toml | */"$1"/Cargo.toml)
        if awk -v name="$1" -v version="$2" '
          /^\[/ { inside = $0 == "[package]" }
          inside && $1 == "name" && $3 == "\"" name "\"" { found++ }
          inside && $1 == "version" && $3 == "\"" version "\"" { found++ }
          END { exit found != 2 }' "$manifest"; then
          dirname "$manifest"
          return
        fi
        ;;
    esac
  done
}

# choice EXPRESSION: the licence that is taken; "all", where several hold together and each is known.
choice() {
  local rest part one found
  rest=$(printf '%s' "$1" | tr '/()' '   ')
  case $rest in
    *' AND '*)
      while [ -n "$rest" ]; do
        part=${rest%% AND *}
        case $rest in *' AND '*) rest=${rest#* AND } ;; *) rest= ;; esac
        found=
        for one in $CHOICES Unicode-3.0; do
          case " $part " in *" $one "*) found=yes ;; esac
        done
        [ -n "$found" ] || return 0
      done
      printf 'all'
      ;;
    *)
      for one in $CHOICES; do
        case " $rest " in
          *" $one "*)
            printf '%s' "$one"
            return
            ;;
        esac
      done
      ;;
  esac
}

# texts FOLDER CHOICE: the files that say the licence, and notices.
texts() {
  local pattern='^(licen[sc]e|copying|copyright|unlicense)'
  local found
  found=$(cd "$1" && ls -p | grep -v / | grep -iE "$pattern" || true)
  if [ "$2" != all ] && [ "$(printf '%s\n' "$found" | wc -l)" -gt 1 ]; then
    local own
    own=$(printf '%s\n' "$found" | grep -iE "[-_.]${2%%-*}" || true)
    found=${own:-$found}
  fi
  printf '%s\n' "$found"
  (cd "$1" && ls -p | grep -v / | grep -iE '^notice' || true)
}

# keep CRATE FILE: one text is printed once, with all crates it is of.
keep() {
  local sum
  sum=$(tr -d '\r' <"$2" | tr -s '[:space:]' ' ' | cksum | tr ' ' '-')
  [ -f "$work/$sum.text" ] || tr -d '\r' <"$2" >"$work/$sum.text"
  printf '%s\n' "$1" >>"$work/$sum.crates"
}

{
  printf 'The program phi3-steer_bg.wasm is made of phi3-steer (LICENSE) and of these crates, under\nlicences that their authors offer; the texts follow.\n\n'
  printf '%s\n' "$crates" | while IFS='|' read -r package licence repository; do
    name=${package%% *}
    version=$(printf '%s' "$package" | awk '{ sub(/^v/, "", $2); print $2 }')
    [ "$name" != phi3-steer ] || continue
    folder=$(folder_of "$name" "$version")
    [ -n "$folder" ] || die "the sources of $name $version are not on this machine"
    [ -n "$licence" ] || die "$name $version states no licence"
    taken=$(choice "$licence")
    [ -n "$taken" ] || die "$name $version is under '$licence', which scripts/notices.sh does not know: may it be shipped?"
    printf '%s %s\n    %s\n    %s\n' "$name" "$version" "$licence" "$repository"
    files=$(texts "$folder" "$taken" | sed '/^$/d')
    if [ -n "$files" ]; then
      printf '%s\n' "$files" | while IFS= read -r file; do keep "$name $version" "$folder/$file"; done
    else
      # Apache 2.0 asks for its text and nothing else; other licences name their holders.
      case $licence in
        *Apache-2.0*) keep "$name $version" LICENSE-APACHE ;;
        *) die "$name $version is under '$licence' and brings no text of it" ;;
      esac
    fi
  done
  printf "Rust's standard library\n    MIT OR Apache-2.0\n    https://github.com/rust-lang/rust\n"
  keep "Rust's standard library" LICENSE-APACHE
  for text in "$work"/*.text; do
    printf '\n%s\n\n' "--------------------------------------------------------------------------------"
    LC_ALL=C sort -u "${text%.text}.crates" | sed 's/$/:/' | sed '$!s/:$/,/'
    printf '\n'
    cat "$text"
  done
} >"$work/notices"

cp LICENSE LICENSE-MIT LICENSE-APACHE "$out"/
cp "$work/notices" "$out/THIRD-PARTY.txt"
