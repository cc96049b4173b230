#!/bin/sh
# Makes a wheel of each library, whichever there are, for all services: beside requirements.lock and the packages.
set -eu
python3 -m venv /build/tools
# Whatever the lock names is taken in its version and with its hash, dependencies too; what it does not name, describe.py
# refuses in what is shipped.
awk '/^[^ ]/ { inside = /^uv==/ } inside' requirements.lock >uv.txt
/build/tools/bin/pip install --quiet --require-hashes --requirement uv.txt
/build/tools/bin/uv pip install --quiet --no-cache --constraint requirements.lock --python /build/tools/bin/python hatchling
for package in proto libs/*; do
  /build/tools/bin/uv build --quiet --wheel --no-build-isolation --python /build/tools/bin/python --out-dir /build/wheels "$package"
done
