# One virtual environment for everything. VENV=/path/to/env uses an existing one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.mask_transformers_ready
DEMO_OUTPUT ?= output/demo

# Packages that the interpreter already has are kept: only then is the environment opened to them.
SEES := $(shell $(PYTHON) -c "import importlib.util as u; print('--system-site-packages' if any(map(u.find_spec, ('torch', 'detectron2', 'panopticapi'))) else '')")

.PHONY: setup demo test lint clean

setup: $(STAMP)

$(STAMP): setup.py tools/setup_environment.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(SEES) $(VENV)
	$(BIN)/python tools/setup_environment.py dev,demo
	touch $@

demo: setup
	$(BIN)/python tools/make_demo.py --output $(DEMO_OUTPUT)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
