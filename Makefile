# `make run` and `make test` do all the set-up on a fresh machine; the rest is for people who work on dmq.

VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= dmq
TESTS ?= tests
# Three share a run on two cores, since tests on nodes wait most of the time; tests/support/lanes.py says who runs what.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --durations=10

.PHONY: help run test unit thorough check perf wheel clean

help:
	@echo "make run       the console on a running cluster (CLUSTER=name for another than dmq)"
	@echo "make test      the test suite (TESTS=path for a part of it)"
	@echo "make unit      what of it needs no nodes, a minute or two"
	@echo "make thorough  the same, with some minutes of rare trouble that it leaves out"
	@echo "make check     style, types and who may import whom"
	@echo "make perf      how long the console's thread is busy; tests/perf has more, each says how it is called"
	@echo "make wheel     builds dist/*.whl"
	@echo "make clean     removes what these commands made here; clusters stay"

run: $(VENV)/.runs
	@$(BIN)/dmq start --install --cluster "$(CLUSTER)"
	@$(BIN)/dmq-tui --cluster "$(CLUSTER)"

# What a backend lacks is told, and its tests then say why they do not run; the others run all the same.
test: $(VENV)/.develops
	-@$(BIN)/dmq doctor --install
	$(PYTEST) $(TESTS)

unit: $(VENV)/.develops
	$(PYTEST) -m "not real and not thorough" $(TESTS)

thorough: $(VENV)/.develops
	-@$(BIN)/dmq doctor --install
	$(PYTEST) -m "" $(TESTS)

check: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

perf: $(VENV)/.develops
	$(BIN)/python -m pytest -o addopts= -s tests/perf

wheel: $(VENV)/.develops
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.runs: pyproject.toml $(BIN)/python
	@echo "installing dmq into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.develops: pyproject.toml $(BIN)/python
	@echo "installing dmq and what its tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.runs

# Debian leaves `ensurepip` out of python3, and a virtual environment needs it: root gets it, others are told.
$(BIN)/python:
	@set -eu; \
	python=; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "dmq needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)" >&2; \
	  echo "Install one, or name one: make PYTHON=/path/to/python3.11 ..." >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  package="$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then sudo=; \
	  elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; \
	  else \
	    echo "$$python cannot make a virtual environment: its ensurepip is missing" >&2; \
	    echo "Install it (on Debian and Ubuntu: 'sudo apt-get install $$package') and try again." >&2; \
	    exit 1; \
	  fi; \
	  echo "installing $$package with apt"; \
	  $$sudo apt-get -qq update; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$$package" >/dev/null; \
	fi; \
	echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
