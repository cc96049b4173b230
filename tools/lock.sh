#!/bin/sh
# Resolves every package's dependencies, and the tools of requirements.in, into requirements.lock: for all supported
# Pythons, with hashes, and without the address of any index. Versions stay unless asked: tools/lock.sh --upgrade
set -eu
cd "$(dirname "$0")/.."
inputs=
own=
for package in proto libs/* services/* deploy/local; do
  [ -f "$package/pyproject.toml" ] || continue
  inputs="$inputs ./$package"
  own="$own --no-emit-package $(sed -n 's/^name = "\(.*\)"$/\1/p' "$package/pyproject.toml")"
done
# shellcheck disable=SC2086 # lists of words on purpose
printf '%s\n' $inputs |
  "${UV:-.venv/bin/uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    $own --output-file requirements.lock "$@" requirements.in -
if grep -nE '://|^-e|^\./' requirements.lock; then
  echo "requirements.lock holds an address or a path (above): take it out." >&2
  exit 1
fi
