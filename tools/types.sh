#!/bin/sh
# mypy over everything: what is shipped, and then each folder of tests by itself, as its files import each other by their
# bare names and several folders have a conftest.py.
set -eu
cd "$(dirname "$0")/.."
sources=
for package in libs/* services/* deploy/local; do
  [ -d "$package/src" ] && sources="$sources $package/src"
done
mypy="${MYPY:-.venv/bin/mypy} --no-error-summary"
failed=0
# shellcheck disable=SC2086 # lists of words on purpose
$mypy $sources deploy/compose/*.py deploy/docker/*.py || failed=1
shipped=$(echo $sources | tr ' ' ':'):deploy/compose:deploy/docker
for tests in libs/*/tests services/*/tests deploy/*/tests tests bench tools; do
  [ -d "$tests" ] || continue
  MYPYPATH=$tests:$shipped $mypy --explicit-package-bases "$tests" || failed=1
done
[ "$failed" -ne 0 ] || echo "mypy: no issues found."
exit "$failed"
