#!/usr/bin/env bash
# Builds the page and serves it on this machine only, opening the browser where there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

port=${PORT:-8080}
if [ -n "${PORT:-}" ]; then
  port_is_free "$port" || die "port $port is in use"
else
  until port_is_free "$port"; do
    port=$((port + 1))
    [ "$port" -lt 8180 ] || die "no free port from 8080 to 8179: choose one with PORT=..."
  done
fi

open=
if [ -z "${CI:-}" ]; then
  case $(uname) in
    Darwin) open=--open ;;
    *) [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && have xdg-open && open=--open ;;
  esac
fi

small=models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf
if [ -f "$small" ]; then
  export BESIDE="$small models/smollm2-135m-instruct-sae/layers.9"
  say "SmolLM2-135M-Instruct, a real small model, is under \"Talk to a real model\", its dictionary under \"Other model…\""
else
  say "for a real small model beside the toy: make small-model (98 MB, once)"
fi

say "building the page (the first time takes some minutes)"
trunk build --release --locked
say "phi3-steer is at http://localhost:$port/ (Ctrl-C stops it)"
exec trunk serve --release --locked --address 127.0.0.1 --port "$port" $open
