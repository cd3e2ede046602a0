#!/bin/sh
# Starts a store of some nodes on this host, each with a page, and stops it at ctrl-C.
# Usage: examples/network.sh [NODES]   by default 3. Needs `cargo build --bins`.
# Node number N listens at port 9900 + N and shows itself at http://127.0.0.1:9980 + N/.
# PROGRAMS names another folder of the programs.
set -eu
nodes=${1:-3}
programs=${PROGRAMS:-$(dirname "$0")/../target/debug}
ids=
stop() {
    trap - INT TERM EXIT
    # Each node hands its keys over, so the last one is left with all of them.
    for id in $ids; do kill "$id" 2>/dev/null || true; done
    wait
}
trap stop INT TERM EXIT

number=0
while [ "$number" -lt "$nodes" ]; do
    port=$((9900 + number)) http=$((9980 + number))
    if [ "$number" = 0 ]; then
        peer=--bootstrap
    else
        peer=--host=127.0.0.1:9900
    fi
    log=${TMPDIR:-/tmp}/store-$port.log
    : >"$log"
    "$programs/storeserver" --port "$port" --advertise 127.0.0.1 --http "$http" "$peer" 2>>"$log" &
    ids="$ids $!"
    until grep -qs 'Starting the server' "$log"; do
        kill -0 $! 2>/dev/null || { cat "$log" >&2; exit 1; }
        sleep 0.2
    done
    echo "127.0.0.1:$port is shown at http://127.0.0.1:$http/ and logs to $log"
    number=$((number + 1))
done
"$programs/storeprimer" -h 127.0.0.1:9900
echo "ctrl-C stops all"
wait
