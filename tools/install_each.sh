#!/bin/sh
# Installs each service, and the command line, by itself, with only what its own pyproject.toml declares, and imports all
# of its modules.
set -eu
cd "$(dirname "$0")/.."
uv=$PWD/.venv/bin/uv
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# As wheels, so that each gets those libraries that it declares, and no other.
for project in proto/pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml; do
  "$uv" build --quiet --wheel --no-build-isolation --python .venv/bin/python --out-dir "$folder/wheels" "$(dirname "$project")"
done
sh deploy/docker/own.sh "$folder/wheels" >"$folder/own.txt"
for project in services/*/pyproject.toml libs/cli/pyproject.toml; do
  service=$(basename "$(dirname "$project")")
  "$uv" venv --quiet --python .venv/bin/python "$folder/$service"
  "$uv" pip install --quiet --python "$folder/$service/bin/python" --constraint requirements.lock \
    --constraint "$folder/own.txt" "backhaul-$service"
  (cd "$folder" && "$service/bin/python" - "$service" <<'PYTHON'
import importlib, pkgutil, sys
package = importlib.import_module(f"backhaul_{sys.argv[1]}")
names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(f"{package.__name__}: installed by itself, {len(names)} modules imported")
PYTHON
  )
done
