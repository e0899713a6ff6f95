#!/bin/sh
# Three members on this machine, until Ctrl-C. Clients: 127.0.0.1:2379, :22379, :32379.
#
#   deploy/local-cluster.sh [DIRECTORY] [FLAGS OF ETCD...]
#
# Data stays in DIRECTORY (default local-cluster): started again, the cluster goes on where it was.
# ETCD names another program than target/release/etcd.
set -eu

program=${ETCD:-$(dirname "$0")/../target/release/etcd}
directory=${1:-local-cluster}
[ $# -eq 0 ] || shift
if ! [ -x "$program" ]; then
    echo "no program at $program: run 'cargo build --release --bin etcd' first, or set ETCD" >&2
    exit 1
fi
mkdir -p "$directory"

cluster='one=http://127.0.0.1:2380,two=http://127.0.0.1:22380,three=http://127.0.0.1:32380'
members=''
# A member that ends by itself ends the others too: then nobody wonders why two are left.
trap 'trap - INT TERM EXIT; kill $members 2>/dev/null || :; wait' INT TERM EXIT

start() {
    name=$1 client=$2 peer=$3
    shift 3
    "$program" --name "$name" --data-dir "$directory/$name" \
        --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "$cluster" --initial-cluster-token local-cluster "$@" \
        >"$directory/$name.log" 2>&1 &
    members="$members $!"
    echo "$name: clients at 127.0.0.1:$client, process $!, log $directory/$name.log"
}

start one 2379 2380 "$@"
start two 22379 22380 "$@"
start three 32379 32380 "$@"
echo 'etcdctl --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379 endpoint status -w table'
wait
