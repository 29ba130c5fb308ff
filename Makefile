# Every target does its own set-up: a fresh clone needs Python 3.11 and nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-faults check bench bases clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed       ## four hospitals, with and without privacy, on this machine
	$(BIN)/wardround demo

test: $(VENV)/.installed-dev   ## the test suite, offline
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not deployment"

test-faults: $(VENV)/.installed-dev  ## the processes of a deployment, and everything that is killed on purpose
	$(BIN)/python -m pytest -m "deployment or fault"
	WARDROUND_FUZZ_CASES=330 $(BIN)/python -m pytest tests/fuzz

check: $(VENV)/.installed-dev  ## lint, format, types, import rings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_rings.py

bench: $(VENV)/.installed-dev  ## the figures of docs/performance.md
	$(BIN)/wardround bench all

bases: $(VENV)/.installed      ## train the embedded base models again from their generators
	$(BIN)/python -m wardround.client.bases.build
	$(BIN)/python -m wardround.client.bases.build_notes
	$(BIN)/python -m wardround.client.bases.build_advice
	$(BIN)/python -m wardround.client.bases.build_speech
	$(BIN)/python -m wardround.client.bases.build_orders
	$(BIN)/python -m wardround.client.bases.build_requests
	$(BIN)/python -m wardround.client.bases.build_pictures

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
