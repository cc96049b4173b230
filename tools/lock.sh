#!/bin/sh
# Resolves every package's dependencies, and the tools of requirements.in, into requirements.lock: for all supported
# Pythons, with hashes, and without the address of any index. Versions stay unless asked: tools/lock.sh --upgrade
set -eu
cd "$(dirname "$0")/.."
"${UV:-.venv/bin/uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-package backhaul-proto --no-emit-package backhaul-common --no-emit-package backhaul-channels \
  --output-file requirements.lock "$@" \
  requirements.in proto/pyproject.toml libs/common/pyproject.toml libs/channels/pyproject.toml \
  services/gateway/pyproject.toml services/normalizer/pyproject.toml deploy/local/pyproject.toml
if grep -nE '://|^-e|^\./' requirements.lock; then
  echo "requirements.lock holds an address or a path (above): take it out." >&2
  exit 1
fi
