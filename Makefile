# Everything a contributor or a first user needs; `make help` lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo
DEMO := $(BIN)/parts2whole demo --out $(OUT) $(if $(SCANS),--scans "$(SCANS)") $(if $(LABELLED),--labelled "$(LABELLED)") \
	$(if $(MODALITY),--modality $(MODALITY))

# lowest.txt: what a direct requirement's lowest version can't have newest.
LOWEST := --resolution lowest-direct --constraint lowest.txt

.PHONY: help demo test test-fast test-lowest test-newest check docs bench format clean

help: ## list the targets
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

demo: $(VENV)/installed ## install, then run the whole path on synthetic scans (or SCANS=... LABELLED=...)
	$(DEMO)

test: $(VENV)/installed-test check ## install what the tests need, check the code, run all tests
	$(BIN)/python -m pytest

test-fast: $(VENV)/installed-test ## what one runs between edits: all tests but the slow ones (tests/slow.txt)
	$(BIN)/python -m pytest -m "not slow"

test-lowest test-newest: ## the same with the lowest versions that pyproject.toml allows, or with the newest
	$(PYTHON) -m venv $(VENV)-$(@:test-%=%)
	$(VENV)-$(@:test-%=%)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)-$(@:test-%=%)/bin/uv pip compile --quiet --extra test $(if $(findstring lowest,$@),$(LOWEST)) \
		pyproject.toml --output-file $(VENV)-$(@:test-%=%)/versions.txt
	$(VENV)-$(@:test-%=%)/bin/uv pip install --quiet --python $(VENV)-$(@:test-%=%)/bin/python \
		--requirement $(VENV)-$(@:test-%=%)/versions.txt
	$(VENV)-$(@:test-%=%)/bin/uv pip install --quiet --python $(VENV)-$(@:test-%=%)/bin/python --no-deps --editable .
	$(VENV)-$(@:test-%=%)/bin/python -m pytest -m "not slow"

check: $(VENV)/installed-test ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-test ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-docs ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/installed-test ## the targets of speed, found against wanted
	$(BIN)/python benchmarks/targets.py

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("parts2whole needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,check]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@
