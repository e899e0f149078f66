#!/usr/bin/env bash
# Builds the Debian package into target/debian/: program, manual page, manual, service, examples. Needs cargo-deb, which it
# installs if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
mkdir -p target/man
cargo run --quiet --locked --example man > target/man/debshrew.1
cargo build --release --locked
cargo deb --locked --no-build "$@"
