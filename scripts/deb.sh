#!/usr/bin/env bash
# Builds the Debian package into target/debian/: program, manual page, manual, service, examples. Needs cargo-deb, which it
# installs if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
mkdir -p target/man
cargo run --quiet --locked --example man > target/man/debshrew.1
# In Debian's form, which asks for a date; what is new is in the package's CHANGELOG.md.
version="$(cargo metadata --locked --no-deps --format-version 1 | grep -oP '"name":"debshrew","version":"\K[^"]+')"
maintainer="$(grep -oP '^maintainer = "\K[^"]+' Cargo.toml)"
built="$(LC_ALL=C date --utc --rfc-email --date="@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")"
printf 'debshrew (%s-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s  %s\n' \
  "$version" "$maintainer" "$built" > target/man/changelog
cargo build --release --locked
cargo deb --locked --no-build "$@"
