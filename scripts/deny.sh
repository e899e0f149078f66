#!/usr/bin/env bash
# Holds the dependencies of both workspaces to deny.toml: licences, sources and bans, and known vulnerabilities where their
# database on GitHub can be reached (always, or an error, with `advisories`). Builds cargo-deny once, into target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
database=https://github.com/RustSec/advisory-db
tools=target/tools
deny=$tools/bin/cargo-deny

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  # Unoptimised, it is built in half the time, and takes seconds all the same.
  cargo install --quiet --locked --debug --root "$tools" --version "$version" cargo-deny
fi

checks=(licenses sources bans)
if [ "${1:-}" = advisories ]; then
  checks=(advisories)
elif timeout 10 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
  checks+=(advisories)
else
  echo "advisories are not looked at: $database cannot be reached" >&2
fi
for manifest in Cargo.toml transforms/Cargo.toml; do
  "$deny" --locked --manifest-path "$manifest" --config deny.toml check "${checks[@]}"
done
