#!/bin/sh
# Fails when a package imports what its own pyproject.toml does not declare, or declares what it does not import.
set -eu
cd "$(dirname "$0")/.."
deptry=$PWD/.venv/bin/deptry
failed=0
for project in proto libs/* services/* deploy/local; do
  [ -f "$project/pyproject.toml" ] || continue
  modules=src
  [ -d "$project/src" ] || modules=gen
  # Providers keep their tests beside their modules; what tests need is in requirements.in.
  if ! said=$(cd "$project" && "$deptry" "$modules" --no-ansi --extend-exclude '.*/tests/' 2>&1); then
    printf '%s:\n%s\n' "$project" "$said"
    failed=1
  fi
done
[ "$failed" -ne 0 ] || echo "Every package declares what it imports, and imports what it declares."
exit "$failed"
