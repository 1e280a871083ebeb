# Two commands: `make serve` chats, `make test` checks. Both install what is missing into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRAINS := $(VENV)/.trains
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help serve test install clean

help:
	@echo "make serve    install and build what is missing, start Strata and print how to chat with it (Ctrl-C stops it)"
	@echo "make test     install what is missing, check format, lint and types, run the tests"
	@echo "make install  only install"

serve: install
	@exec $(BIN)/strata up

test: install $(TRAINS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -m 'not cluster' --numprocesses auto --maxprocesses 8 --dist worksteal
	$(BIN)/pytest -m cluster

install: $(STAMP)

# A stamp that is newer than pyproject.toml says: nothing to install. It is written last, so that an
# installation that was cut short is done again.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Strata needs Python 3.11 or newer: no $(PYTHON) here. Install it, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Strata needs Python 3.11 or newer: this is $$($(PYTHON) --version). Run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@command -v g++ >/dev/null || command -v c++ >/dev/null || { echo "Strata compiles its collectives: install a C++ compiler (Debian, Ubuntu: apt install g++)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV): some minutes the first time"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --editable '.[dev]'
	@$(BIN)/strata build || echo "Nothing was compiled ahead; strata up tries again" >&2
	@touch $@

# What serves does not train: the tests do.
$(TRAINS): $(STAMP)
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --editable '.[dev,train]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
