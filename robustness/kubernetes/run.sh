#!/usr/bin/env bash
# Runs the storage tests of Kubernetes' API server (its store and its watch cache) against a server binary.
# Needs Go, and modules from its proxy.
#
#   robustness/kubernetes/run.sh target/release/etcd [version of k8s.io/apiserver, 0.37 or compatible]
set -euo pipefail

if [[ $# -lt 1 || ! -x $1 ]]; then
    echo "usage: $0 SERVER_BINARY [VERSION], for instance: $0 target/release/etcd v0.37.2" >&2
    exit 2
fi
ETCD_BINARY=$(realpath "$1")
export ETCD_BINARY
version=${2:-v0.37.2}
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
go mod init ferrite/kubernetes 2>/dev/null
sources=$(go mod download -json "k8s.io/apiserver@$version" | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
cp -r "$sources" apiserver
chmod -R u+w apiserver
cp "$here/testserver.go" apiserver/pkg/storage/etcd3/testserver/test_server.go
cd apiserver
go test -count=1 ./pkg/storage/etcd3/... ./pkg/storage/cacher/...
