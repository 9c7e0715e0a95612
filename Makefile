# Every target sets itself up; all that must be there is Python 3.11 or newer with pip.
#   make demo     the whole product on the embedded sample, results in demo/
#   make test     every test; fewer with make test ARGS='-m "not slow"'
#   make check    lint, types, import directions
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTHON ?= $(shell for p in python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

.PHONY: help setup demo test check clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

demo: $(READY)
	$(BIN)/edgeseg demo -o demo

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy --strict edgeseg
	$(BIN)/lint-imports

# One environment for all targets: nearly all of its size is torch and the converters, which each of them needs.
# --no-compile: of so much code little is ever imported; Python compiles that when it is.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; install it, or name one: make PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV) (2.8 GB, some minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --editable '.[dev]'
	$(BIN)/python -m pip check
	@touch $@

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
