#!/usr/bin/env bash
# Runs the README's first command as a newcomer does: an empty environment and no flag. The member must serve on
# 127.0.0.1:2379, keep a key over a restart, and end orderly.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
etcdctl="${MECHI_ORACLES:-$PWD/target/oracle}/etcd-3.5.1/etcdctl"
home="$(mktemp -d)"
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$home"' EXIT

cargo build --release --locked
# The same program that `cargo run --release` starts, in a folder of its own for ./default.etcd.
member="$PWD/target/release/mechi"

start() {
  (cd "$home" && exec env -i HOME="$home" PATH="$PATH" "$member") >>"$home/log" 2>&1 &
  pid=$!
  for _ in $(seq 300); do
    if curl --silent --fail --max-time 1 http://127.0.0.1:2379/health >/dev/null; then return; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "no member on 127.0.0.1:2379" >&2
  cat "$home/log" >&2
  exit 1
}

stop() {
  kill -TERM "$pid"
  wait "$pid"
  pid=
}

start
"$etcdctl" put hello world
stop
start
[ "$("$etcdctl" get hello --print-value-only)" = world ]
stop
[ -d "$home/default.etcd/member" ]
echo "the README's command serves, stops and starts again"
