# Everything one types here. Each target makes its own environment: Python >= 3.11 and make are enough.
#
#   make demo    a thousand orders, their worker killed with kill -9, every one charged once
#   make test    everything: what `make check` looks at, then all tests
#   make check   format, lint, layers, types, fast tests: about a minute, stops at the first failure
#   make soak    the long tests ten times as long: for a night (SOAK=30: thirty times)
#   make fix     what the tools can put right by themselves
#   make bench   the measurements of benchmarks/RESULTS.md
#   make clean   back to a fresh clone

PYTHON  ?= python3
WORKERS ?= 2
SOAK    ?= 10

VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
READY  := $(VENV)/.ready

# Without its caches Python would compile the tests, and in every process that they start the package, each time anew.
unexport PYTHONDONTWRITEBYTECODE

# Rooms that start real processes or search for long: in `make soak` ten times as long.
SLOW   := tests/crash tests/e2e tests/simulation/long
# With them, what `make check` leaves to `make test`. Every other file is fast, also one that is new.
FULL   := $(SLOW) tests/determinism tests/unit/testing tests/simulation/test_moments.py
# `make check` puts the files of its tests into memory, if there is room: most of its time would be waiting for a disk.
# What runs is the same, fsync included; what it does to a real disk is seen by `make test`.
MEMORY := $(shell df -k /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 500000 { print "/dev/shm" }')
# worksteal: a worker that is done takes from the other, so that one slow room does not decide the time.
PYTEST := $(PY) -m pytest --numprocesses=$(WORKERS) --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test check soak static sizes fix bench clean

help:
	@sed -n '/^#   make/s/^#   //p' Makefile

# The stamp is written last: an installation that broke off is begun again. It is as old as pyproject.toml
# at most, so a new dependency arrives with the next make.
$(READY): pyproject.toml
	@echo "perdure: installing into $(VENV) (once, a minute at most)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(PY) examples/orders/demo.py

# The order in which they fail fastest: a file's shape, a file, the imports between files, the types.
static: $(READY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pyright

check: static sizes
	$(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(PYTEST) $(addprefix --ignore=,$(FULL)) tests

test: static
	$(PYTEST) tests

# No limit of time: how long a test takes is what the factor says. What it does is in its own figures (-rA).
soak: $(READY)
	PERDURE_SOAK=$(SOAK) $(PYTEST) --timeout=0 -rA $(SLOW)

# A question to the author, never a failure: a split that only satisfies a number is worse than the long file.
sizes: $(READY)
	@$(PY) tests/house/sizes.py

fix: $(READY)
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check .

bench: $(READY)
	$(PY) benchmarks/run.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
