#!/usr/bin/env bash
# Counts `unsafe` in the crates that bytes from outside pass through, one line a crate: blocks, functions, and
# implementations, traits and foreign items. debshrew's own code has none (`unsafe_code = "forbid"`).
# Counted is the source as published, whatever features are on, without comments, tests, benches and examples.
# scripts/unsafe.sh [CRATE...]
set -euo pipefail
cd "$(dirname "$0")/.."

# Modules; JSON; the source's answers; TLS; PostgreSQL's answers; blocks and hashes; what carries all of them.
hostile=(wasmi wasmi_core wasmi_ir wasmi_collections wasmparser
    serde_json serde_core itoa memchr zmij
    reqwest hyper hyper-util http http-body httparse bytes url
    rustls rustls-webpki rustls-pki-types ring
    tokio-postgres postgres-protocol postgres-types tokio-postgres-rustls
    bitcoin bitcoin_hashes bitcoin-io hex-conservative hex secp256k1 secp256k1-sys
    tokio indexmap hashbrown smallvec)
[ $# -eq 0 ] || hostile=("$@")

registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
tree=$(cargo tree --locked --edges normal --prefix none --format '{p}' --package debshrew | awk '{ print $1, substr($2, 2) }' | sort -u)

# Sources without comments and without what follows a file's test module.
code() {
    find "$1/src" -name '*.rs' ! -path '*/tests/*' ! -name 'tests.rs' ! -name 'test.rs' -print0 |
        xargs -0 -r awk 'FNR == 1 { test = 0 } /^#\[cfg\(test\)\]/ { getline; if ($0 ~ /mod [a-z_]+ \{/) test = 1 } !test { sub(/\/\/.*/, ""); print }'
}

printf '%-24s %-10s %7s %10s %7s\n' crate version blocks functions others
while read -r name version; do
    case " ${hostile[*]} " in *" $name "*) ;; *) continue ;; esac
    for folder in "$registry"/*/"$name-$version"; do
        [ -d "$folder" ] || continue
        code "$folder" | awk -v name="$name" -v version="$version" '
            { line = $0
              while (match(line, /(^|[^A-Za-z0-9_])unsafe([^A-Za-z0-9_]|$)/)) {
                  rest = substr(line, RSTART + RLENGTH - 1); sub(/^e?[ ]*/, "", rest)
                  if (rest ~ /^(extern "[^"]*" )?fn/) functions++
                  else if (rest ~ /^(impl|trait|extern|mod)/) others++
                  else if (rest ~ /^\{/ || rest == "") blocks++
                  line = substr(line, RSTART + RLENGTH - 1) } }
            END { printf "%-24s %-10s %7d %10d %7d\n", name, version, blocks, functions, others }'
        break
    done
done <<<"$tree" | awk '{ print; b += $3; f += $4; o += $5 } END { printf "%-24s %-10s %7d %10d %7d\n", "all", "", b, f, o }'
