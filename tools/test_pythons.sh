#!/bin/sh
# Runs the tests that need no server on each supported Python that this machine has besides that of .venv: all of
# libs/channels, and those of libs/common and the services that ask for no server's fixture (pytest -m "not servers").
# What is tried with examples is tried with few: which there are does not depend on the Python, and `make test` has many.
# Each gets a virtual environment of its own in .tools, filled from requirements.lock with its hashes.
set -eu
cd "$(dirname "$0")/.."
failed=0
own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in 3.11 3.12 3.13; do
  [ "$version" = "$own" ] && continue
  python=
  # A name on PATH may be a shim that only says that there is no such version: what counts is that it runs.
  for candidate in $(command -v "python$version") $(which -a "python$version" 2>/dev/null) "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
    if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ]; then
      python=$candidate
      break
    fi
  done
  if [ -z "$python" ]; then
    echo "Python $version: not on this machine."
    continue
  fi
  folder=.tools/python$version
  if ! cmp -s requirements.lock "$folder/requirements.lock"; then
    "$python" -m venv --clear "$folder"
    PYTHON=$folder/bin/python sh tools/install.sh
    cp requirements.lock "$folder/requirements.lock"
  fi
  echo "Python $("$folder/bin/python" -V | cut -d ' ' -f 2):"
  "$folder/bin/python" tools/run_tests.py -q -n logical --maxprocesses 4 --hypothesis-profile few -m "not servers and not timed" libs services || failed=1
  "$folder/bin/python" tools/run_tests.py -q -m "timed and not servers" libs services || failed=1
done
exit "$failed"
