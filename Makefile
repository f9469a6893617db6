# Each target creates the environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
DEMO := .venv-demo
DOCS := .venv-docs
PACKAGE := .venv-package

# The tests compile the modules that they use. Compiling all modules would double the time of the installation.
INSTALL := pip install --quiet --disable-pip-version-check --no-compile

# Most of the time is spent starting programs, so tests run in parallel with one thread each.
TESTED := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=
PARALLEL := --numprocesses logical --maxprocesses 4 --dist worksteal

# Tests that do not depend on the version of transformers.
INDEPENDENT := atlas audit augmentation benchmarks broken_files bulk card charsets cli ctc damaged_data data demo docs errors \
	fuzz_data fuzz_images image_loading layers metrics publish readme redaction renderer reporting results sources \
	speed synthetic words synthetic_texts tables

.PHONY: help test test-slow test-oldest test-demo environments check format demo docs package clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) -c constraints.txt -e '.[dev,onnx]'
	touch $@

test: $(VENV)/.installed  ## run the tests
	$(TESTED) $(BIN)/python -m pytest $(PARALLEL)

test-slow: $(VENV)/.installed  ## run also the tests that take minutes
	$(TESTED) $(BIN)/python -m pytest $(PARALLEL) -m 'not gpu'

$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -v '^transformers==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/$(INSTALL) -c $(OLDEST)/constraints.txt 'transformers==5.18.0' -e '.[dev]'
	touch $@

test-oldest: $(OLDEST)/.installed  ## run the tests that depend on transformers with its oldest supported version
	$(TESTED) $(OLDEST)/bin/python -m pytest $(PARALLEL) $(INDEPENDENT:%=--ignore=tests/test_%.py)

# Gradio needs older versions of two packages.
$(DEMO)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	grep -vE '^(pillow|tomlkit)==' constraints.txt > $(DEMO)/constraints.txt
	$(DEMO)/bin/$(INSTALL) -c $(DEMO)/constraints.txt -e '.[dev,demo]' playwright
	touch $@

test-demo: $(DEMO)/.installed  ## run the tests of svtrv2 demo and of pages in Chromium, if it is installed
	$(TESTED) $(DEMO)/bin/python -m pytest -m 'browser or not browser' tests/test_demo.py tests/test_demo_browser.py \
		tests/test_error_page_browser.py

environments: $(VENV)/.installed $(OLDEST)/.installed $(DEMO)/.installed  ## create the environments of the tests

check: $(VENV)/.installed  ## check lint, formatting, words and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_words.py
	$(BIN)/mypy

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.installed  ## recognize text in the example images with the bundled checkpoint
	HF_HUB_OFFLINE=1 $(BIN)/svtrv2 read src/svtrv2_hf/demo/examples

$(DOCS)/.installed $(PACKAGE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(INSTALL) 'pip>=25.1'  # older versions do not support groups
	$(@D)/bin/$(INSTALL) -c constraints.txt --group $(patsubst .venv-%,%,$(@D))
	touch $@

docs: $(DOCS)/.installed  ## build the documentation site in site/
	rm -rf build/pages
	mkdir -p build/pages
	cp -r *.md CITATION.cff docs model_cards build/pages
	rm -r build/pages/model_cards/templates
	$(DOCS)/bin/zensical build --clean --strict

package: $(PACKAGE)/.installed  ## build sdist and wheel in dist/, and test them in a fresh environment
	rm -rf dist
	$(PACKAGE)/bin/python -m build --sdist --wheel
	$(PACKAGE)/bin/twine check --strict dist/*
	$(PACKAGE)/bin/python scripts/check_package.py dist

clean:  ## remove the environments and the output of tools
	rm -rf $(VENV) $(OLDEST) $(DEMO) $(DOCS) $(PACKAGE) site .cache dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
