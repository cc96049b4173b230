# Every target sets up what it needs: a .venv made with the machine's Python, filled from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# A package is a folder with a pyproject.toml: a new library or service is there as soon as its folder is.
PACKAGES := $(patsubst %/pyproject.toml,%,$(sort $(wildcard proto/pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml deploy/local/pyproject.toml)))
# Keyword and path of pytest: make test ARGS="-k twilio libs/channels"
ARGS ?=
# An environment that forbids it (many container images do) would have each of hundreds of processes compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup up demo check test test-pythons test-console test-containers test-upgrade faults fuzz lint format proto texts lock bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with everything that the other targets need

$(STAMP): requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Backhaul needs Python 3.11 to 3.13; say which with make PYTHON=python3.12")'
	@# By pip and not by python, which is there already after an interruption, or where venv had nothing to install pip with.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "No $(VENV). If ensurepip is missing: apt install python3-venv (Debian, Ubuntu)." >&2; exit 1; }
	PYTHON=$(BIN)/python sh tools/install.sh
	@touch $@

up: $(STAMP) ## Run real servers and every service until Ctrl-C; data is kept in .backhaul/
	@$(BIN)/python -m backhaul_local up

demo: $(STAMP) ## Watch signed callbacks become message states on a stack of its own (ARGS="--compose deploy/compose": on it)
	@$(BIN)/python -m backhaul_local demo $(ARGS)

check: format lint ## The inner loop: formats, lints, and runs the quick tests without servers of what changed since main
	@set -- $$($(BIN)/python tools/affected.py); [ $$# -eq 0 ] || \
	  $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --hypothesis-profile check -m "not servers and not slow" "$$@" || [ $$? -eq 5 ]  # 5: it has none.

test: $(STAMP) ## Run every test, on real servers (ARGS="…" goes to pytest)
ifeq ($(strip $(ARGS)),)
	@# More processes than two cores have work for: tests wait for servers, leases and outages more than they work. Whole
	@# stacks are of many processes themselves, and timed, so fewer run at once. loadscope: see tests/keeping.py.
	@# What measures the clock has it to itself. The few that fail are run again, alone: see tools/run_tests.py.
	$(BIN)/python tools/run_tests.py -n 4 -m "not timed and not browser" libs services
	$(BIN)/python tools/run_tests.py -n 2 --dist loadscope -m "not timed and not browser" deploy/compose deploy/k8s deploy/local deploy/observability tests
	$(BIN)/python tools/run_tests.py -m "timed and not browser" libs services tests
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-pythons: $(STAMP) ## Run the tests that need no server on every other supported Python that this machine has
	sh tools/test_pythons.sh

test-console: $(STAMP) ## Look at every page of the console with a real browser (skips without Chromium)
	$(BIN)/python -m pytest -q -n 2 --dist loadscope -m browser tests/console services $(ARGS)

test-containers: $(STAMP) ## Build every image, and run compose.yaml with podman (needs root; skips without podman; ARGS=--quick)
	sh tools/test_containers.sh $(ARGS)

test-upgrade: $(STAMP) ## Upgrade from the version before and back, service by service, under load (ARGS="--before COMMIT")
	@$(BIN)/python tests/upgrade/rolling.py $(ARGS)

faults: $(STAMP) ## Kill, freeze, cut off and slow everything under load, and account for all of it (ARGS="--seed 7")
	@$(BIN)/python tests/faults/storm.py $(ARGS)

fuzz: $(STAMP) ## Try each adapter for five minutes with bodies that nobody thought of (ARGS="--seconds 60 twilio")
	$(BIN)/python libs/channels/tests/fuzzing.py $(ARGS)

lint: $(STAMP) ## ruff, mypy, import-linter, deptry, and the checks of the contracts and the documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_reasons.py
	sh tools/types.sh
	$(BIN)/python tools/lint_imports.py
	sh tools/check_dependencies.sh
	$(BIN)/python tools/check_proto.py
	$(BIN)/python tools/check_docs.py
	$(BIN)/python tools/console_texts.py --check
	sh tools/buf.sh

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP) ## Generate proto/gen from the contracts
	proto/generate.sh

texts: $(STAMP) ## Collect the console's texts for translators
	$(BIN)/python tools/console_texts.py

lock: $(STAMP) ## Resolve requirements.lock anew
	sh tools/lock.sh

bench: $(STAMP) ## Measure a real stack, print a table, write bench/latest.json
	@$(BIN)/python bench/run.py $(ARGS)

clean: ## Remove what the other targets made, the data of `make up` included
	rm -rf $(VENV) .tools .backhaul .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
