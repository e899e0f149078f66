#!/usr/bin/env bash
# Brings what building and testing need beside Rust, if it is not there: PostgreSQL's server programs, a standard
# library for WebAssembly, which transforms are built with, a browser, in which the status page is tested, and
# pgbouncer, behind which the service is.
# Does nothing, and needs no network, when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

has_postgres() {
  command -v initdb >/dev/null && return
  command -v pg_config >/dev/null && [ -x "$(pg_config --bindir)/initdb" ] && return
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# Rustup's is the way to go; where it cannot be had, Debian has a compiler and the library's source.
has_web() {
  scripts/transforms.sh --check && return
  command -v rustup >/dev/null && rustup target add wasm32-unknown-unknown && return
  echo "rustup cannot bring the target wasm32-unknown-unknown; Debian's packages will do" >&2
  return 1
}

has_browser() {
  command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome || command -v chrome; } >/dev/null
}

has_pooler() {
  command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]
}

missing=()
has_postgres || missing+=(postgresql)
has_web || missing+=(rustc-web cargo-web rust-web-src libstd-rust-web-dev)
has_browser || missing+=(chromium chromium-driver)
has_pooler || missing+=(pgbouncer)

[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]} (Debian's names); install them with this system's package manager" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "missing: ${missing[*]}; as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
