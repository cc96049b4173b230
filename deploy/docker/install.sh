#!/bin/sh
# Installs one service by itself into a folder: install.sh <service> <folder>, where wheels.sh was run.
set -eu
service=$1
folder=$2
uv=/build/tools/bin/uv
"$uv" build --quiet --wheel --no-build-isolation --python /build/tools/bin/python --out-dir /build/wheels "services/$service"
python3 -m venv --without-pip "$folder"
sh own.sh /build/wheels >own.txt
"$uv" pip install --quiet --no-cache --constraint requirements.lock --constraint own.txt --python "$folder/bin/python" \
  --compile-bytecode "backhaul-$service"
"$folder/bin/python" describe.py "$service" "$folder"
