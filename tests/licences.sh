#!/usr/bin/env bash
# Holds every dependency against deny.toml: with cargo-deny where it is installed, else with the part of it that
# `cargo metadata` can answer: licences, sources, and crates that are banned by name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if cargo deny --version 2>/dev/null; then
  exec cargo deny --locked check licenses bans sources
fi
cargo metadata --locked --format-version 1 --all-features \
  --filter-platform x86_64-unknown-linux-gnu --filter-platform aarch64-unknown-linux-gnu |
  python3 -c '
import json, re, sys, tomllib
with open("deny.toml", "rb") as file:
    rules = tomllib.load(file)
allowed = set(rules["licenses"]["allow"])
banned = {entry["crate"]: entry["reason"] for entry in rules["bans"]["deny"]}

def permitted(expression):
    """Evaluates an SPDX expression: names become True where deny.toml allows them. The old "/" means OR."""
    tokens = re.findall(r"\(|\)|[^\s()/]+(?:\s+WITH\s+[^\s()/]+)?|/", expression)
    words = {"AND": "and", "OR": "or", "/": "or", "(": "(", ")": ")"}
    return eval(" ".join(words.get(token) or str(token in allowed) for token in tokens))

wrong = []
packages = json.load(sys.stdin)["packages"]
for package in packages:
    name, source, licence = package["name"], package["source"], package["license"]
    if name in banned:
        wrong.append(f"{name} is banned: {banned[name]}")
    if source and source != "registry+https://github.com/rust-lang/crates.io-index":
        wrong.append(f"{name} comes from {source}")
    if not licence or not permitted(licence):
        wrong.append(f"{name} has the licence {licence}")
print("\n".join(wrong) or f"licences: {len(packages)} packages conform to deny.toml")
sys.exit(bool(wrong))
'
