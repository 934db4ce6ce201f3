# `make demo` and `make test` work on a fresh clone with Python 3.11, make and a compiler.

PYTHON ?= python3.11
BIN := .venv/bin
# Tests at a time: one more than the two cores of a small machine, for some wait for processes that they started.
JOBS ?= 3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test lint clean

# A study has a dozen processes that import torch, Ray and pandas: without kept bytecode each compiles them anew.
unexport PYTHONDONTWRITEBYTECODE

demo: .venv/.installed
	$(BIN)/python experiments/digits/demo.py

test: .venv/.installed-dev lint
	$(BIN)/python -m slipcover --json --out .coverage.json -m pytest -n $(JOBS)
	$(BIN)/python -m slipcover --merge .coverage.json --out .coverage.json --fail-under 85

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	touch .venv/.installed $@

clean:
	rm -rf .venv build *.egg-info
