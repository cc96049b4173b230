#!/bin/sh
# Lints the contracts, and refuses changes that break programs built against proto/baseline.binpb, the last release's
# contracts. buf comes as an npm package: where there is no npm, this check is left to a machine that has it.
# To release contracts: tools/buf.sh baseline, and commit the file.
set -eu
cd "$(dirname "$0")/.."
version=1.75.0
if ! command -v npm >/dev/null 2>&1; then
  echo "buf: left out, because there is no npm on this machine."
  exit 0
fi
buf=.tools/node_modules/.bin/buf
if [ ! -x "$buf" ] || [ "$("$buf" --version 2>&1)" != "$version" ]; then
  npm install --silent --no-fund --no-audit --no-save --prefix .tools "@bufbuild/buf@$version" >/dev/null
fi
if [ "${1:-check}" = baseline ]; then
  "$buf" build proto -o proto/baseline.binpb
  exit 0
fi
"$buf" lint proto
"$buf" breaking proto --against proto/baseline.binpb
echo "buf: the contracts lint, and break nothing that was released."
