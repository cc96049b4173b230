#!/bin/sh
# Constraints by which whoever needs a library of ours gets the wheel of it in a folder, whatever an index has by its name:
# own.sh <folder>.
set -eu
for wheel in "$(cd "$1" && pwd)"/*.whl; do
  name=$(basename "$wheel")
  echo "${name%%-*} @ file://$wheel"
done
