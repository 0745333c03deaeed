# Every target does its own set-up in .venv; only Python 3.11-3.13 and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Names as they were typed, with $ and quotes and blanks: make must not read them, and the shell gets them as variables.
override DATA := $(value DATA)
override FOLDER := $(value FOLDER)
export DATA FOLDER

.PHONY: help quickstart report lab test test-notebooks test-browser coverage test-slow test-lowest fuzz bench notebooks docs lint doctor requirements
.DELETE_ON_ERROR:

help:
	@echo "make quickstart              train on the default images, report in runs/quickstart/report.html"
	@echo "make quickstart DATA=folder  the same on your images, one subfolder per class"
	@echo "make report DATA=folder      the long way: audit, pretrained or from scratch, groups, export; runs/report/report.html"
	@echo "make … FOLDER=folder         where the report goes"
	@echo "make lab                     open the notebooks in JupyterLab"
	@echo "make doctor                  check this machine"
	@echo "make notebooks               run all notebooks at full size and keep their outputs"
	@echo "make docs                    build the documentation; docs/_build/html/index.html"
	@echo "make test                    run the tests"
	@echo "make test-notebooks          run those that run notebooks, reports, and the code of README and guide"
	@echo "make test-browser            run those that drive JupyterLab in Chromium"

$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else "cnnlab needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % v[:2])'
	@echo "Installing into $(VENV); this takes some minutes, once …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing the tools for tests …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[dev]'
	@touch $@

quickstart: $(VENV)/installed
	@$(BIN)/python -m cnnlab report notebooks/00_quickstart.ipynb --folder="$${FOLDER:-runs/quickstart}" --data="$$DATA"

report: $(VENV)/installed
	@$(BIN)/python -m cnnlab report notebooks/12_your_own_images.ipynb --folder="$${FOLDER:-runs/report}" --data="$$DATA"

lab: $(VENV)/installed
	@$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb

notebooks: $(VENV)/installed
	@$(BIN)/python -m cnnlab refresh notebooks/*.ipynb

doctor: $(VENV)/installed
	@$(BIN)/python -m cnnlab doctor

test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-notebooks: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n 2 --dist load -m 'notebooks and not slow'

test-browser: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m browser

coverage: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not browser' --cov --cov-report=term --cov-fail-under=95

test-slow: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -m slow --timeout=3600

# The lowest versions that pyproject.toml allows, in an environment of their own; `pip install uv` first.
test-lowest:
	uv venv --quiet --clear --python=3.11 .venv-lowest
	uv pip install --quiet --python=.venv-lowest --resolution=lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not browser'

fuzz: $(VENV)/installed-dev
	@$(BIN)/python tests/fuzz/run.py --minutes 10

bench: $(VENV)/installed-dev
	@$(BIN)/python benchmarks/all.py

$(VENV)/installed-docs: $(VENV)/installed
	@echo "Installing the tools for the documentation …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/installed-docs
	@$(BIN)/python -m sphinx -b html -q -W --keep-going docs docs/_build/html
	@echo "Documentation: docs/_build/html/index.html"

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Exact versions from the ranges in pyproject.toml; `pip install uv` first.
requirements:
	@{ echo "# Compiled from pyproject.toml by \`make requirements\`: the exact set that is tested. The last line installs cnnlab."; \
	   uv pip compile pyproject.toml --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --upgrade --quiet; \
	   echo "-e ."; } > requirements.new && mv requirements.new requirements.txt
