# SPDX-License-Identifier: Apache-2.0
#
#   make demo     packets of a capture through several processes
#   make test     the whole suite
#   make lint     format, lint and types
#   make bench    nanoseconds and packets per second
#   make docs     the documentation, into build/docs
#
# Needs git, Python >= 3.11 and a C compiler; everything else is installed into .venv by pip. A change of a C
# file or of pyproject.toml rebuilds on the next call, a change of a Python file needs nothing.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ARGS   ?=

BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
NATIVE := $(wildcard ssm/src/*.[ch] ssm/src/binding/*.[ch] allocators/src/*.[ch] allocators/src/binding/*.[ch]) \
          $(wildcard cmake/*) CMakeLists.txt pyproject.toml

export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test lint bench docs clean install
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/ssm demo $(ARGS)

test: $(VENV)/.installed $(VENV)/.group-test $(VENV)/.group-examples
	PYTHONDEVMODE=1 $(BIN)/python -m pytest -n $(JOBS) --maxschedchunk 4 $(ARGS)

lint: $(VENV)/.installed $(VENV)/.group-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest-allowlist --ignore-unused-allowlist \
	  ssm._core allocators._core

bench: $(VENV)/.installed $(VENV)/.group-bench
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.allocators

docs: $(VENV)/.installed $(VENV)/.group-docs
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --builder html docs build/docs
	@echo build/docs/index.html

install: $(VENV)/.installed

clean:
	rm -rf build dist $(VENV)/.installed .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ssm allocators tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"ssm needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=/path/to/a/newer/python3")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.group-%: pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --group $*
	@touch $@

# What examples need and others do not; where an interpreter has no wheel of it, those examples are skipped.
$(VENV)/.group-examples: pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --only-binary :all: --group examples || echo 'Some examples will be skipped.'
	@touch $@

$(VENV)/.installed: $(NATIVE) | $(VENV)/.group-build
	$(PIP) install --quiet --no-build-isolation --editable '.[demo]'
	@touch $@
