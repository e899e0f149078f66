#!/bin/sh
# Measures how long it takes until another process goes on when a writer's host vanishes from the network: the writer runs in
# a network namespace of its own, whose link is cut. Needs root, iproute2 and PostgreSQL's programs.
set -eu

skip() { echo "skipped: $1"; exit 0; }
[ "$(uname -s)" = Linux ] || skip 'network namespaces are of Linux'
[ "$(id -u)" = 0 ] || skip 'making a network namespace takes root'
command -v ip >/dev/null || skip 'there is no `ip` (iproute2)'

cd "$(dirname "$0")/.."
here="dsw$$"
ip netns add "$here" 2>/dev/null || skip 'no network namespace can be made here'
trap 'ip netns del "$here" 2>/dev/null || true; ip link del "$here" 2>/dev/null || true' EXIT
third=$(($$ % 250 + 1))
ip link add "$here" type veth peer name inside netns "$here"
ip addr add "10.231.$third.1/30" dev "$here"
ip link set "$here" up
ip -n "$here" addr add "10.231.$third.2/30" dev inside
ip -n "$here" link set inside up
ip -n "$here" link set lo up

DEBSHREW_TEST_NAMESPACE="$here" DEBSHREW_TEST_NAMESPACE_HOST="10.231.$third.1" \
  cargo test --locked --features failpoints --test tests -- \
  steady::takeover::a_host_that_vanishes --ignored --nocapture --test-threads 1
