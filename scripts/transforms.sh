#!/usr/bin/env bash
# Builds transforms for WebAssembly, optimised: scripts/transforms.sh [FOLDER [OPTION...]], by default transforms/;
# options are cargo's.
#
# The files are in FOLDER/target/wasm32-unknown-unknown/release/. Needs what scripts/setup.sh brings, and no
# network once the dependencies are there. A second run does nothing. With --check in place of a folder its exit
# code says whether it can build.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
target=wasm32-unknown-unknown

# Every block that is evaluated has a stack of its own, which by default is 1 MiB of mostly nothing. A transform that
# needs more than this traps; it can be given more by the same variable.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="${CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS:--C link-arg=-zstack-size=131072}"

# Where the compiler in the path has the target's standard library, as rustup installs it.
has_target() {
  command -v rustc >/dev/null && compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null
}

# Debian's compiler for the web, with the source of its standard library; older ones than this do not know what
# the SDK is written in.
has_debian() {
  [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || return
  [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ] || return
  printf '%s\n' 1.85 "$(/usr/bin/rustc --version | cut -d ' ' -f 2)" | sort --version-sort --check=quiet
}

# The linker for WebAssembly: the one that comes with rustup's toolchain, or LLVM's own.
linker() {
  local found
  found="$(compgen -G "$(rustc --print sysroot)/lib/rustlib/*/bin/rust-lld" | head -n 1)" || true
  [ -n "$found" ] || found="$(command -v rust-lld wasm-ld | head -n 1)" || true
  echo "$found"
}

build_with_target() {
  cargo build --release --target "$target" "$@"
}

# Builds the standard library as well, since Debian has none for this target. That asks for an unstable flag of
# cargo, which `RUSTC_BOOTSTRAP` lets a stable one take.
build_with_debian() {
  local linker
  linker="$(linker)"
  if [ -z "$linker" ]; then
    echo "no linker for WebAssembly: neither rustup's \`rust-lld\` nor \`wasm-ld\` (Debian: apt-get install lld)" >&2
    return 1
  fi
  RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    /usr/bin/cargo -Zbuild-std=std,panic_abort build --release --target "$target" "$@"
}

main() {
  local folder="${1:-$root/transforms}" locked=()
  if [ "$folder" = --check ]; then
    has_target || has_debian
    return
  fi
  if [ ! -f "$folder/Cargo.toml" ]; then
    echo "\`$folder\` has no Cargo.toml; give the folder of a transform, or of a workspace of them" >&2
    return 2
  fi
  cd "$folder"
  # With a lock file its versions are binding; a new crate has none yet.
  [ ! -f Cargo.lock ] || locked=(--locked)
  if has_target; then
    build_with_target "${locked[@]}" "${@:2}"
  elif has_debian; then
    build_with_debian "${locked[@]}" "${@:2}"
  else
    echo "no compiler for $target: run scripts/setup.sh, or \`rustup target add $target\`" >&2
    return 1
  fi
}

main "$@"
