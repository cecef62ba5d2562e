#!/usr/bin/env bash
# Shows that the lint which keeps the heart pure bites: each of these lines would be an error in server/replica, and
# the last ones would not. clippy-driver finds server/replica/clippy.toml as it does for the crate itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT

judge() { # judge LINE: whether the lint lets a crate of this one line pass
  printf '#![allow(dead_code)]\n%s\n' "$1" >"$tmp/probe.rs"
  CARGO_MANIFEST_DIR="$PWD/server/replica" clippy-driver --edition 2024 --crate-type lib --emit metadata \
    --out-dir "$tmp" "$tmp/probe.rs" -D warnings >"$tmp/said" 2>&1
}

banned=(
  'fn f(_: std::collections::HashMap<u8, u8>) {}'
  'fn f(_: std::collections::HashSet<u8>) {}'
  'fn f(_: std::time::Instant) {}'
  'fn f() -> bool { std::time::SystemTime::now().elapsed().is_ok() }'
  'fn f(_: std::sync::Mutex<u8>) {}'
  'fn f(_: std::sync::RwLock<u8>) {}'
  'fn f() { std::thread::sleep(std::time::Duration::ZERO) }'
  'fn f() -> bool { std::env::var("HOME").is_ok() }'
  'fn f() -> bool { std::fs::read("x").is_ok() }'
  'fn f(_: std::net::TcpStream) {}'
)
for line in "${banned[@]}"; do
  if judge "$line" || ! grep -q 'disallowed' "$tmp/said"; then
    echo "not refused in server/replica: $line" >&2
    cat "$tmp/said" >&2
    exit 1
  fi
done
for line in 'fn f(_: std::collections::BTreeMap<u8, u8>) {}' 'fn f(_: std::time::Duration) {}'; do
  judge "$line" || { cat "$tmp/said" >&2; exit 1; }
done
echo "purity: ${#banned[@]} impure lines refused"
