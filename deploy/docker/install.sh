#!/bin/sh
# Installs one service by itself into a folder: install.sh <service> <folder>, beside requirements.lock and the packages.
set -eu
service=$1
folder=$2
python3 -m venv /build/tools
# Whatever the lock names is taken in its version and with its hash, dependencies too; what it does not name, describe.py
# refuses in what is shipped.
awk '/^[^ ]/ { inside = /^uv==/ } inside' requirements.lock >uv.txt
/build/tools/bin/pip install --quiet --require-hashes --requirement uv.txt
uv() { /build/tools/bin/uv pip install --quiet --no-cache --constraint requirements.lock "$@"; }
uv --python /build/tools/bin/python hatchling
for package in proto libs/* "services/$service"; do
  /build/tools/bin/uv build --quiet --wheel --no-build-isolation --python /build/tools/bin/python --out-dir /build/wheels "$package"
done
python3 -m venv --without-pip "$folder"
uv --python "$folder/bin/python" --compile-bytecode --find-links /build/wheels "backhaul-$service"
"$folder/bin/python" describe.py "$service" "$folder"
