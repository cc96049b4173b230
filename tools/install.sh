#!/bin/sh
# Installs requirements.lock, every file checked against its hash, then every package of this repository, editable.
# uv does in seconds what takes pip minutes; it knows nothing of pip's configuration, so where it cannot reach an index
# pip does the work.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
pip="$python -m pip install --quiet --disable-pip-version-check"
only_uv=$(mktemp)
trap 'rm -f "$only_uv"' EXIT
awk '/^[^ ]/ { inside = /^uv==/ } inside' requirements.lock >"$only_uv"
$pip --require-hashes --requirement "$only_uv"
"$python" -m uv pip install --quiet --python "$python" --require-hashes --requirement requirements.lock ||
  $pip --require-hashes --requirement requirements.lock
editable=
for package in proto libs/* services/* deploy/local; do
  [ -f "$package/pyproject.toml" ] && editable="$editable --editable ./$package"
done
# shellcheck disable=SC2086 # a list of words on purpose
$pip --no-deps --no-build-isolation $editable
