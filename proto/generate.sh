#!/bin/sh
# Generates proto/gen from the contracts: messages, gRPC stubs and their type stubs. Usage: proto/generate.sh [OUT]
set -eu
cd "$(dirname "$0")"
out=${1:-gen}
bin=$(dirname "${PYTHON:-../.venv/bin/python}")
mkdir -p "$out"
# shellcheck disable=SC2046 # file names of the contracts hold no blanks
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  $(find backhaul_proto -name '*.proto' | sort)
# Contracts without a service need no stub modules.
find "$out" -name '*_pb2_grpc.py*' | while read -r file; do
  grep -q 'class .*Stub' "$file" || rm "$file"
done
find "$out" -type d -path '*backhaul_proto*' ! -name __pycache__ -exec touch {}/__init__.py \;
touch "$out/backhaul_proto/py.typed"
