#!/bin/sh
# Installs one service by itself into a folder: install.sh <service> <folder>, where wheels.sh was run.
set -eu
service=$1
folder=$2
uv=/build/tools/bin/uv
"$uv" build --quiet --wheel --no-build-isolation --python /build/tools/bin/python --out-dir /build/wheels "services/$service"
python3 -m venv --without-pip "$folder"
"$uv" pip install --quiet --no-cache --constraint requirements.lock --python "$folder/bin/python" --compile-bytecode \
  --find-links /build/wheels "backhaul-$service"
"$folder/bin/python" describe.py "$service" "$folder"
