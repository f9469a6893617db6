# Every target makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

.PHONY: help test test-slow test-oldest check format demo clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: $(VENV)/.installed  ## run the tests
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-slow: $(VENV)/.installed  ## run also the tests that take minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m 'not gpu and not pretrained'

$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -v '^transformers==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt 'transformers==5.18.0' -e '.[dev]'
	touch $@

test-oldest: $(OLDEST)/.installed  ## run the tests with the oldest supported transformers
	HF_HUB_OFFLINE=1 $(OLDEST)/bin/python -m pytest

check: $(VENV)/.installed  ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.installed  ## read a handful of images with the recogniser that comes with the package
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/demo.py

clean:  ## remove the environments and what tools left behind
	rm -rf $(VENV) $(OLDEST) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
