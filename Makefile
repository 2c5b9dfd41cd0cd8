# Everything happens in .venv. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-full postgres check format-check lint types layers bench bench-peers docs venv constraints format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.base ## run a flow over four years of Seattle's weather
	$(BIN)/python examples/seattle_weather.py

test: $(VENV)/.dev postgres ## run the tests
	$(PYTEST) -q

test-full: $(VENV)/.dev postgres ## run the tests and the long proofs
	$(PYTEST) -q -m "full or not full" --hypothesis-profile=full -o faulthandler_timeout=1800

# The tests start a PostgreSQL server of their own, from the programs of the distribution.
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } || { \
	    echo "The tests need the programs of PostgreSQL 14 or newer (initdb, pg_ctl, postgres); install them first," >&2; \
	    echo "on Debian and Ubuntu with: sudo apt-get install postgresql" >&2; exit 1; }; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q postgresql; }

check: format-check lint types layers docs test ## all that a change must pass

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.dev ## build the documentation into docs/_build
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs docs/_build

bench: $(VENV)/.dev ## measure, and compare with references in the same run
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)-peers/.made ## the same beside other libraries, in an environment of their own
	$(VENV)-peers/bin/python -m benchmarks peers

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/.dev ## make .venv with the package, editable, and all tools

constraints: $(VENV)/.dev ## move to the newest versions and pin them in constraints.txt
	$(PIP) install -q --upgrade --upgrade-strategy eager --no-build-isolation -e '.[dev]'
	$(PIP) freeze --exclude-editable > constraints.txt

clean: ## remove everything that make has made
	rm -rf $(VENV) $(VENV)-peers build dist docs/_build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what .venv holds, so that a second call of make has nothing to install.
# hatchling comes first and pinned: the editable build then uses it instead of fetching its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Routilux needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt hatchling editables
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[cli]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)-peers/.made: pyproject.toml constraints-peers.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install -q -c constraints-peers.txt hatchling editables dbos langgraph langgraph-checkpoint-sqlite
	$(VENV)-peers/bin/python -m pip install -q -c constraints-peers.txt --no-build-isolation -e .
	@touch $@
