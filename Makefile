# One virtual environment for everything. VENV=/path/to/env uses an existing one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.mask_transformers_ready
DEMO_OUTPUT ?= output/demo
# All systems beside each other: minutes of training of each, and a folder of nuclei, if there is one.
COMPARISON_OUTPUT ?= output/comparison
SHAPES_MINUTES ?= 30
NUCLEI_MINUTES ?= 20
NUCLEI ?=

# Packages that the interpreter already has are kept: only then is the environment opened to them.
SEES := $(shell $(PYTHON) -c "import importlib.util as u; print('--system-site-packages' if any(map(u.find_spec, ('torch', 'detectron2', 'panopticapi'))) else '')")

.PHONY: setup demo comparison test lint clean

setup: $(STAMP)

$(STAMP): setup.py tools/setup_environment.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(SEES) $(VENV)
	$(BIN)/python tools/setup_environment.py dev,demo
	touch $@

demo: setup
	$(BIN)/python tools/make_demo.py --output $(DEMO_OUTPUT)

comparison: setup
	$(BIN)/python tools/compare.py systems --costs --minutes $(SHAPES_MINUTES) --eval-period 1000 \
		--output $(COMPARISON_OUTPUT)/shapes
	$(if $(NUCLEI),$(BIN)/python tools/compare.py nuclei --data $(NUCLEI) --minutes $(NUCLEI_MINUTES) \
		--eval-period 400 --output $(COMPARISON_OUTPUT)/nuclei)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info
