# make run            train the default, or: make run ARGS="model=lstm data=pydocs"
# make test           everything that has to be green
# make bench          measure what dlrun costs, beside a bare loop and Lightning; writes benchmarks/RESULTS.md
# make pictures       README's pictures again, from real runs; needs Chromium
# make constraints    note the versions that the suite is green with
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# One more than there are cores: many tests wait for processes, disks and time-outs of their own.
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else os.cpu_count(), 8))')

.PHONY: run test lint bench pictures constraints clean

run: .venv/.installed
	@$(BIN)/dlrun $(ARGS)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
	@echo "left out: tests marked slow ($(BIN)/python -m pytest -m slow runs them)"

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing dlrun into .venv (torch is some 5 GB the first time)"
	@$(INSTALL) -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@$(INSTALL) -e '.[dev]'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dlrun needs Python 3.11 or later, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv .venv

# What torch brings for the GPU is torch's own affair.
bench: .venv/.installed
	@$(INSTALL) -e '.[bench]'
	@$(BIN)/python benchmarks/run.py

pictures: .venv/.installed-dev
	@$(BIN)/python docs/make_pictures.py

constraints: .venv/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(nvidia-|cuda-|triton|-e)| @ ' > constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
